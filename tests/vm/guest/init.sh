#!/bin/busybox sh
# The guest's first program: mounts the host's root read-only, puts a layer in memory over it for what the guest writes, and
# goes on as start.sh in there. The kernel's command line says where the modules (og_modules) and that script (og_start) are.
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs devtmpfs /dev
for module in /modules/*; do $b insmod "$module"; done
for word in $($b cat /proc/cmdline); do
  case $word in
    og_modules=*) modules=${word#*=} ;;
    og_start=*) start=${word#*=} ;;
  esac
done
if ! $b mount -t virtiofs -o ro host /host; then
  echo "the host's root can not be mounted"
  $b poweroff -f
fi
$b mount -t tmpfs scratch /scratch
$b mkdir /scratch/upper /scratch/work
$b mount -t overlay -o lowerdir=/host,upperdir=/scratch/upper,workdir=/scratch/work root /new
for place in proc sys dev; do $b mount --move /$place /new/$place; done
release=${modules##*/}
$b mkdir -p "/new/lib/modules/$release"
$b mount --bind "/host$modules" "/new/lib/modules/$release"
exec $b switch_root /new /bin/bash "$start"
