# Measures block devices over one target in a guest: ours, qemu-nbd's, and the
# kernel's own initiator. The contenders take turns.
set -eu
name=iqn.2026-11.com.example:bench
portal=127.0.0.1:3260
log() { echo "$@" >&2; }

# await COMMAND...: until it succeeds.
await() {
	tries=600
	until "$@"; do
		tries=$((tries - 1))
		if [ $tries = 0 ]; then
			log "not in a minute: $*"
			tail /tmp/*.log >&2
			exit 1
		fi
		sleep 0.1
	done
}

# Two devices that exist beforehand are for qemu-nbd, which makes none.
modprobe nbd nbds_max=2
for m in crc32c_generic sd_mod iscsi_tcp; do modprobe $m 2>/dev/null || true; done

iscsi-target -p $portal -T $name -null 8G >/tmp/target.log 2>&1 &
await grep -q '^listening on' /tmp/target.log

# Ours, in a prefix, so that open-iscsi has the machine's own places; in the
# guest's memory, as what it shares with the host may take no sockets.
export ISCSI_ROOT=/tmp/ours ISCSI_DEV=/dev
mkdir -p $ISCSI_ROOT/etc/iscsi $ISCSI_ROOT/var/lib/iscsi $ISCSI_ROOT/run
echo InitiatorName=iqn.2026-11.com.example:ours >$ISCSI_ROOT/etc/iscsi/initiatorname.iscsi
echo node.session.attach = nbd >$ISCSI_ROOT/etc/iscsi/iscsid.conf
/lab/bin/iscsid -f >/tmp/ours.log 2>&1 &
await [ -S $ISCSI_ROOT/run/iscsid/control.sock ]
/lab/bin/iscsiadm -m discovery -t sendtargets -p $portal
/lab/bin/iscsiadm -m node -T $name -p $portal --login || { cat /tmp/ours.log; exit 1; }
ours=/dev/$(/lab/bin/iscsiadm -m session -P 3 | sed -n 's/.*Attached scsi disk \([a-z0-9]*\).*/\1/p')

devices="iscsid=$ours"

peer=
for n in 0 1; do
	[ -b /dev/nbd$n ] && [ ! -e /sys/block/nbd$n/pid ] && { peer=/dev/nbd$n; break; }
done
if [ -n "$peer" ] && command -v qemu-nbd >/dev/null; then
	qemu-nbd -c $peer -f raw --cache=none iscsi://$portal/$name/1 >/tmp/qemu.log 2>&1 &
	i=0
	until [ -e /sys/block/${peer#/dev/}/pid ] || [ $i = 100 ]; do sleep 0.1; i=$((i + 1)); done
	if [ $i = 100 ]; then cat /tmp/qemu.log; else devices="$devices qemu-nbd=$peer"; fi
fi

# The kernel's initiator, by open-iscsi's programs.
if [ -e /sys/module/iscsi_tcp ] && [ -x /usr/sbin/iscsid ]; then
	unset ISCSI_ROOT ISCSI_DEV
	rm -rf /etc/iscsi/nodes /etc/iscsi/send_targets
	mkdir -p /etc/iscsi /run/lock/iscsi
	echo InitiatorName=iqn.2026-11.com.example:kernel >/etc/iscsi/initiatorname.iscsi
	: >>/etc/iscsi/iscsid.conf
	/usr/sbin/iscsid -f >/tmp/kernel.log 2>&1 &
	sleep 1
	/usr/sbin/iscsiadm -m discovery -t sendtargets -p $portal >/dev/null || cat /tmp/kernel.log
	if /usr/sbin/iscsiadm -m node -T $name -p $portal --login; then
		i=0
		until [ -n "$(ls /sys/block | grep '^sd' || true)" ] || [ $i = 50 ]; do sleep 0.1; i=$((i + 1)); done
		disk=$(ls /sys/block | grep '^sd' | head -n 1)
		if [ -n "$disk" ]; then
			echo none >/sys/block/$disk/queue/scheduler || true
			devices="$devices kernel=/dev/$disk"
		fi
	fi
fi
log "devices: $devices"

# measure CONTENDER DEVICE RW BYTES DEPTH
measure() {
	fio --name=x --filename=$2 --ioengine=libaio --direct=1 --rw=$3 --rwmixread=70 --bs=$4 --iodepth=$5 \
		--size=1g --time_based --ramp_time=500ms --runtime=$SECONDS_EACH --norandommap --randrepeat=0 \
		--output-format=terse --terse-version=3 |
		awk -F';' -v c="$1" -v w="$3 $4 $5" '$1 == 3 { print "result", c, w, $8 + $49 }'
}

for c in $CASES; do # each RW:BYTES:DEPTH
	rw=${c%%:*} depth=${c##*:} size=${c#*:}
	size=${size%:*}
	round=0
	while [ $round -lt "$ROUNDS" ]; do
		for d in $devices; do measure "${d%%=*}" "${d#*=}" "$rw" "$size" "$depth"; done
		round=$((round + 1))
	done
done
log done
