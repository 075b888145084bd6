# Boots the systemd of a directory, in namespaces of its own: mounts, processes, cgroups, network.
# Arguments: the directory, which stays as it is; an empty directory for what changes; a directory that
# the machine sees as /mnt.
set -e
root=$1 changes=$2 share=$3
mount --make-rprivate /
mount -t tmpfs tmpfs "$changes"
mkdir "$changes/upper" "$changes/work" "$changes/root"
mount -t overlay -o "lowerdir=$root,upperdir=$changes/upper,workdir=$changes/work" overlay "$changes/root"
cd "$changes/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for device in null zero full random urandom tty; do
    : >"dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs tmpfs tmp
mount --bind "$share" mnt
mkdir run/before
pivot_root . run/before
umount -l /run/before
exec env -i container=schedscope PATH=/usr/sbin:/usr/bin:/sbin:/bin /sbin/init </dev/null
