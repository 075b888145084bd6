#!/bin/busybox sh
# The first process of a guest: makes a system of sorts, runs what /vm/checks lists, and switches off.
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root TERM=dumb LC_ALL=C
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
exec >/dev/console 2>&1 </dev/null
stty -F /dev/console raw -echo
# Nothing is mounted on other directories: the checkout, whose paths the tests know, may be anywhere.
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t cgroup2 cgroup /sys/fs/cgroup
echo +cpu >/sys/fs/cgroup/cgroup.subtree_control
mount -t bpf bpf /sys/fs/bpf
mount -t debugfs debug /sys/kernel/debug
mount -t tracefs trace /sys/kernel/tracing
mount -t securityfs security /sys/kernel/security
ln -s /proc/self/fd /dev/fd
ip link set lo up
cd /
date -s "@$(cat /vm/now)" >/dev/null
# What the kernel says from here on would get into what the checks say; a crash still shows.
dmesg -n 1
echo "@@vm up $(cut -d' ' -f1 /proc/uptime) $(uname -r)"
. /vm/environment
number=0
while read -r seconds program test; do
    echo "@@vm begin $number"
    before=$(cut -d' ' -f1 /proc/uptime)
    timeout -s KILL "$seconds" "$program" --exact "$test" --show-output --test-threads=1 2>&1
    code=$?
    echo "@@vm end $number $code $before $(cut -d' ' -f1 /proc/uptime)"
    number=$((number + 1))
done </vm/checks
echo "@@vm done"
poweroff -f
