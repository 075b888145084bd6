# Says what can be seen, read, written and done from where it runs; each line is one thing too many in
# the service's sandbox. It runs there as the service's user, and once outside as root to compare with.
for path in /etc/passwd /etc/shadow /etc/ssl /home /var/lib/dpkg /var/log /opt /srv /boot /mnt /media \
    /usr/sbin /usr/share /run/dbus /run/systemd/system /run/systemd/private /root/.bashrc; do
    if [ -e "$path" ]; then echo "sees $path"; fi
done
for directory in / /etc /etc/schedscope /usr /usr/bin /usr/lib /sys/kernel /sys/fs/cgroup /dev /dev/shm \
    /var /run/systemd /proc/sys/kernel; do
    if (: >"$directory/trial") 2>/dev/null; then
        echo "writes to $directory"
        rm -f "$directory/trial"
    fi
done
for file in /etc/schedscope.toml /proc/sys/kernel/printk /proc/self/oom_score_adj/../../1/oom_score_adj \
    /sys/kernel/mm/transparent_hugepage/enabled /usr/bin/schedscope; do
    if (: >>"$file") 2>/dev/null; then echo "writes $file"; fi
done
for file in /proc/1/environ /proc/1/mem /proc/kmsg /proc/kcore /etc/schedscope/secret; do
    if (: <"$file") 2>/dev/null; then echo "reads $file"; fi
done
if kill -0 1 2>/dev/null; then echo "signals process 1"; fi
if (exec 3<>/dev/tcp/127.0.0.1/9750) 2>/dev/null; then :; else echo "has no network"; fi
# What is written here must not be met outside.
for directory in /tmp /var/tmp /run; do (: >"$directory/left-behind") 2>/dev/null || true; done
echo "tried all"
