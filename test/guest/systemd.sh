# The part of the boot that makes a Debian for systemd out of the host's root;
# read by boot.sh with the overlay's root as working directory. What the host
# has enabled for itself does not run here, only what is static, what
# /lab/.prepare enables, and the job.
rm -f etc/machine-id
echo guest >etc/hostname
rm -rf etc/systemd/system/*.wants etc/systemd/system/*.requires etc/systemd/system/dbus-org.* var/lib/systemd/deb-systemd-helper-*
mkdir -p etc/systemd/system/multi-user.target.wants
for u in systemd-networkd.service systemd-networkd.socket systemd-resolved.service systemd-timesyncd.service systemd-logind.service \
	getty@tty1.service console-getty.service serial-getty@ttyS0.service \
	apt-daily.timer apt-daily-upgrade.timer fstrim.timer e2scrub_all.timer systemd-tmpfiles-clean.timer dpkg-db-backup.timer man-db.timer; do
	ln -sf /dev/null "etc/systemd/system/$u"
done
ln -sf /lib/systemd/system/multi-user.target etc/systemd/system/default.target
cat >etc/systemd/system/guest-job.service <<'UNIT'
[Unit]
Description=The job of this guest
After=multi-user.target
[Service]
Type=oneshot
TimeoutStartSec=infinity
ExecStart=/bin/sh /lab/.runjob
StandardOutput=journal
UNIT
ln -sf ../guest-job.service etc/systemd/system/multi-user.target.wants/guest-job.service
cat >lab/.runjob <<'RUN'
export HOME=/root LANG=C.UTF-8 TERM=dumb USER=root
cd /lab || exit 1
tty=/dev/ttyS0
stty -F "$tty" raw -echo 2>/dev/null
(
	exec </dev/null >"$tty" 2>&1
	exec sh /lab/.job
)
echo $? >/lab/status
sync
# Not "systemctl poweroff", which asks logind, and that does not run here.
systemctl --no-block --job-mode=replace-irreversibly start poweroff.target
RUN
mount -t proc proc proc
mount -t devtmpfs devtmpfs dev
chroot . /bin/sh -e /lab/.prepare || die "preparation has failed"
umount dev proc
