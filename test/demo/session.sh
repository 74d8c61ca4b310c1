# The tutorial's session, command by command: a target on a file, discovery,
# login, a file system, logout, CHAP, login again, the same files.
# DEMO_ATTACH says how LUNs are attached: nbd (a block device; wants root) or
# socket. Run by test/demo/demo with the programs first on the PATH.
set -eu

dir=$(mktemp -d "${TMPDIR:-/tmp}/demo.XXXXXX")
iqn=iqn.2016-01-com.example.tg1
target_pid='' mounted=''

say() { printf '\n# %s\n' "$*"; }
run() { printf '$ %s\n' "$*"; "$@"; }

# Everything is undone, in the right order, however this ends.
cleanup() {
	status=$?
	trap - EXIT
	[ -z "$mounted" ] || umount "$mounted" 2>/dev/null || true
	# The daemon takes its pid file away in its own time after -k 0.
	if pid=$(cat "$dir/iscsid.pid" 2>/dev/null) && [ -n "$pid" ]; then
		iscsiadm -m node -U all >/dev/null 2>&1 || true
		stop "$pid"
	fi
	[ -z "$target_pid" ] || stop "$target_pid"
	rm -rf "$dir"
	[ $status = 0 ] || printf '\nThe demo failed (%s).\n' "$status"
	exit $status
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# stop ends a process and waits until it is gone, for five seconds at most.
stop() {
	kill "$1" 2>/dev/null || return 0
	n=0
	while kill -0 "$1" 2>/dev/null && [ $n -lt 50 ]; do
		sleep 0.1
		n=$((n + 1))
	done
	kill -9 "$1" 2>/dev/null || true
}

# start_target serves the file $dir/disk, on the standard port if it is free.
start_target() {
	for address in ${portal:-127.0.0.1:3260 127.0.0.1:0}; do
		iscsi-target -p "$address" -T $iqn -file "$dir/disk" "$@" >"$dir/target.log" 2>&1 &
		target_pid=$!
		n=0
		while kill -0 $target_pid 2>/dev/null && [ $n -lt 100 ]; do
			if bound=$(sed -n 's/^listening on //p' "$dir/target.log" | head -n 1) && [ -n "$bound" ]; then
				portal=$bound
				return
			fi
			sleep 0.05
			n=$((n + 1))
		done
	done
	cat "$dir/target.log"
	exit 1
}

# Nothing of the machine's own configuration is read or written. The kernel's
# places, /dev and /sys, stay where they are.
unset ISCSI_ROOT
export ISCSI_CONFIG="$dir/iscsid.conf" ISCSI_INITIATORNAME="$dir/initiatorname.iscsi" \
	ISCSI_DB="$dir/nodes.db" ISCSI_RUN="$dir/run" ISCSI_PIDFILE="$dir/iscsid.pid"
if [ "$DEMO_ATTACH" = nbd ]; then export ISCSI_DEV=/dev; else export ISCSI_DEV="$dir/dev"; fi
mkdir -p "$dir/run" "$dir/mnt" "$ISCSI_DEV"
echo "node.session.attach = $DEMO_ATTACH" >"$ISCSI_CONFIG"
echo "InitiatorName=$(iscsi-iname)" >"$ISCSI_INITIATORNAME"

say "A target: our own iscsi-target serves a file of 64 MiB."
truncate -s 64M "$dir/disk"
start_target
echo "listening on $portal"
p=${portal%:3260}

say "The initiator's daemon goes to the background."
run iscsid

say "Discover what the target offers, and look at the record that this made."
run iscsiadm -m discovery -t sendtargets -p "$p"
printf '$ iscsiadm -m node --targetname %s --portal %s | head -n 5\n' $iqn "$p"
iscsiadm -m node --targetname $iqn --portal "$p" >"$dir/record"
head -n 5 "$dir/record"

say "Log in, and see the session and the disk."
run iscsiadm -m node --targetname $iqn --portal "$p" --login
run iscsiadm -m session -P 3

# disk sets what the LUN is to be used through.
disk() {
	if [ "$DEMO_ATTACH" = nbd ]; then
		disk=/dev/$(iscsiadm -m session -P 3 | sed -n 's/.*Attached scsi disk \([a-z0-9]*\).*/\1/p' | head -n 1)
	else
		disk=$(find "$ISCSI_RUN/luns" -type s | head -n 1)
	fi
	[ -n "$disk" ] && [ "$disk" != /dev/ ] || { echo "no disk"; exit 1; }
}
mount_disk() { run mount "$disk" "$dir/mnt"; mounted=$dir/mnt; }
umount_disk() { run umount "$dir/mnt"; mounted=''; }

disk
if [ "$DEMO_ATTACH" = nbd ]; then
	say "A file system on the block device, and something in it."
	link=$(find /dev/disk/by-path -name "ip-*-iscsi-$iqn-lun-*" | head -n 1)
	run ls -l "$link"
	run mkfs.ext4 -q -F "$disk"
	mount_disk
	run dd if=/dev/urandom of="$dir/mnt/data" bs=1M count=16 status=none
	printf '$ sha256sum data\n'
	(cd "$dir/mnt" && sha256sum data) | tee "$dir/sum"
	umount_disk
else
	say "Fill the disk through its NBD export (nbdcopy, qemu-img and fio can use it too)."
	dd if=/dev/urandom of="$dir/data" bs=1M count=64 status=none
	run nbdfile put "$disk" "$dir/data"
	printf '$ sha256sum data\n'
	(cd "$dir" && sha256sum data) | tee "$dir/sum"
	rm "$dir/data"
fi

say "Log out."
run iscsiadm -m node --targetname $iqn --portal "$p" --logout

say "The target now wants CHAP: without it the login is refused."
stop "$target_pid"
printf password >"$dir/password"
start_target -user usuario -password-file "$dir/password"
status=0
run iscsiadm -m node --targetname $iqn --portal "$p" --login || status=$?
echo "(exit status $status)"
[ $status = 24 ] || { echo "want exit status 24"; exit 1; }

say "Set the credentials in the record, and log in again."
run iscsiadm -m node --targetname $iqn -p "$p" -o update -n node.session.auth.username -v usuario
run iscsiadm -m node --targetname $iqn -p "$p" -o update -n node.session.auth.password -v password
run iscsiadm -m node --targetname $iqn --portal "$p" --login

disk
say "The files are still there."
if [ "$DEMO_ATTACH" = nbd ]; then
	mount_disk
	printf '$ sha256sum -c\n'
	(cd "$dir/mnt" && sha256sum -c "$dir/sum")
	umount_disk
else
	run nbdfile get "$disk" "$dir/data"
	printf '$ sha256sum -c\n'
	(cd "$dir" && sha256sum -c "$dir/sum")
fi

say "Log out, and stop the daemon."
run iscsiadm -m node --targetname $iqn --portal "$p" --logout
run iscsiadm -k 0
printf '\nDone: what was written before the logout was read after it.\n'
