#!/bin/bash
# The guest's first process once it has its root: completes the mounts, then becomes the agent. If the kernel's command line
# names a script (og_install), it runs that first, as an installer would, and becomes systemd with the units put there.
mount -t tmpfs tmpfs /run
mkdir -p /run/lock /run/netns /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ln -sfn /proc/self/fd /dev/fd
ln -sf /proc/self/fd/0 /dev/stdin
ln -sf /proc/self/fd/1 /dev/stdout
ln -sf /proc/self/fd/2 /dev/stderr
hostname guest
ip link set lo up
here=$(dirname "$0")
for word in $(</proc/cmdline); do
  case $word in
    og_path=*) export PATH=${word#*=} ;;
    og_install=*) install=${word#*=} ;;
  esac
done
if [ -n "${install:-}" ]; then
  rm -f /.dockerenv # else systemd takes the guest for a container
  . "$install"
  exec /lib/systemd/systemd --unit=guest.target --show-status=no
fi
exec /bin/bash "$here/agent.sh"
