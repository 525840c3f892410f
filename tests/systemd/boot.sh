#!/usr/bin/env bash
# Becomes the systemd of a machine of its own: run by booted.py as process 1 of new namespaces.
#
#   boot.sh LAYER CHECKOUT    a folder to be copied over this machine's files, and one to be seen at /opt/src
#
# Neither is ever written to: what is written there goes to memory. No network but a loopback, no device but
# null and its like.
set -euo pipefail
layer=$1 checkout=$2 R=/run/root

mount -t tmpfs tmpfs /run -o mode=755
mkdir -p /run/written $R
mount -t tmpfs tmpfs /run/written
mkdir /run/written/{upper,work}
mount -t overlay overlay -o "lowerdir=/,upperdir=/run/written/upper,workdir=/run/written/work" $R

# This machine's own services, mounts and journal are not wanted here.
rm -rf $R/etc/systemd/system/* $R/var/log/journal
mkdir -p $R/var/log/journal
: >$R/etc/fstab
echo booted >$R/etc/hostname
tr -d - </proc/sys/kernel/random/uuid >$R/etc/machine-id
ln -s /lib/systemd/system/basic.target $R/etc/systemd/system/default.target
cp -a "$layer/." $R/
for unit in systemd-{timesyncd,pstore,udevd,udev-trigger,hwdb-update,sysctl,networkd,resolved,modules-load}; do
  ln -s /dev/null "$R/etc/systemd/system/$unit.service"
done

mount -t proc proc $R/proc
mount --bind $R/proc/sys $R/proc/sys
mount -o remount,ro,bind $R/proc/sys
mount -t sysfs sysfs $R/sys -o ro
mount -t tmpfs tmpfs $R/dev -o mode=755
for device in null zero full random urandom tty; do
  touch $R/dev/$device
  mount --bind /dev/$device $R/dev/$device
done
mkdir $R/dev/{pts,shm}
mount -t devpts devpts $R/dev/pts -o newinstance,ptmxmode=0666,mode=620,gid=5
mount -t tmpfs tmpfs $R/dev/shm -o mode=1777
ln -s pts/ptmx $R/dev/ptmx
ln -s /proc/self/fd $R/dev/fd
for number in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${number%:*}" "$R/dev/${number#*:}"; done
mount -t tmpfs tmpfs $R/run -o mode=755
mount -t tmpfs tmpfs $R/tmp -o mode=1777
mkdir $R/opt/src
mount --bind "$checkout" $R/opt/src
mount -o remount,ro,bind $R/opt/src

# As this machine has them: version 2 alone, or a hierarchy for each controller of version 1.
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
  unified=1
  mount -t cgroup2 cgroup2 $R/sys/fs/cgroup
else
  unified=0
  mount -t tmpfs tmpfs $R/sys/fs/cgroup -o mode=755
  for path in /sys/fs/cgroup/*/; do
    name=$(basename "$path")
    if [ -L "${path%/}" ]; then
      cp -d "${path%/}" "$R/sys/fs/cgroup/"
      continue
    fi
    mkdir "$R/sys/fs/cgroup/$name"
    case $name in
      unified) mount -t cgroup2 cgroup2 "$R/sys/fs/cgroup/$name" ;;
      systemd) mount -t cgroup -o none,name=systemd cgroup "$R/sys/fs/cgroup/$name" ;;
      *) mount -t cgroup -o "$name" cgroup "$R/sys/fs/cgroup/$name" ;;
    esac
  done
fi

ip link set lo up
hostname booted
cd $R
mkdir -p old
pivot_root . old
cd /
umount -l /old
mount --make-rshared / # or LoadCredential= fails
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 container=byzsgd \
  /lib/systemd/systemd --system --log-target=journal --show-status=no systemd.unified_cgroup_hierarchy=$unified
