#!/bin/sh
# The first process of a user-mode-Linux guest (its root is the host's, read
# through hostfs). Lays an overlay over that root, mounts the exchange
# directory at /lab, prepares a bare machine and runs /lab/.job; or, with
# GUEST_INIT=systemd, hands over to systemd. The kernel's command line gives
# these and GUEST_DIR, the exchange directory's path on the host.
# Messages here go to the console; the job's output goes to the serial line.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root LANG=C.UTF-8 TERM=dumb

stop() { # the guest ends with its first process's word, whatever tools it has
	sync
	poweroff -f 2>/dev/null
	echo o >/proc/sysrq-trigger
	exit 1
}
die() { echo "guest: $*" >&2; stop; }

mount -t proc proc /proc || die "no /proc"
modules=/usr/lib/uml/modules
overlay=$(find "$modules/$(uname -r)" -name 'overlay.ko*' | head -n 1)
[ -z "$overlay" ] || insmod "$overlay" || die "overlay: no such file system"

# The overlay's upper layer is memory: gone with the guest.
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root || die "overlay over the root"
cd /mnt/root || die "overlay root"
mkdir -p lab lib/modules proc sys dev run tmp
mount --bind "$modules" lib/modules || die "modules"
mount -t hostfs none lab -o "$GUEST_DIR" || die "exchange directory $GUEST_DIR"
: >etc/fstab
if [ "$GUEST_INIT" = systemd ]; then
	. "$GUEST_DIR/.systemd"
	umount /proc
	# What the kernel's command line leaves in the environment is not for it.
	unset GUEST_DIR GUEST_INIT
	exec switch_root /mnt/root /lib/systemd/systemd --log-target=console --log-level=warning --show-status=no
fi
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t devtmpfs devtmpfs dev
for d in run tmp; do mount -t tmpfs -o mode=1777 tmpfs $d; done
chmod 755 run
mkdir -p dev/pts dev/shm run/lock
mount -t devpts devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
exec chroot /mnt/root /bin/sh /lab/.init
