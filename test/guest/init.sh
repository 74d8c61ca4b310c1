# The second half of the boot, inside the overlay: network, then the job.
# Runs as process 1 of either kind of guest; /lab/.job is the job, /lab/status
# gets its exit status, /dev/ttyS0 (or what GUEST_TTY names) its output.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root LANG=C.UTF-8 TERM=dumb USER=root
tty=/dev/${GUEST_TTY:-ttyS0}
ip link set lo up 2>/dev/null || ifconfig lo up || echo "guest: loopback is down: install iproute2" >&2
hostname guest 2>/dev/null
# A raw line: no carriage returns added, nothing echoed.
stty -F "$tty" raw -echo 2>/dev/null
cd /lab || exit 1
(
	exec <"/dev/null" >"$tty" 2>&1
	exec sh /lab/.job
)
echo $? >/lab/status
sync
poweroff -f 2>/dev/null
echo o >/proc/sysrq-trigger
exit 1
