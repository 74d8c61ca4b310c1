//go:build integration

package boot

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/test/guest"
)

// prepare installs the package in place of open-iscsi and makes the machine's
// configuration, as an administrator would before a reboot.
const prepare = `
export DEBIAN_FRONTEND=noninteractive PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
dpkg --force-unsafe-io --force-confnew -i /lab/goiscsi.deb >/lab/dpkg.log 2>&1
cat >/etc/systemd/system/target.service <<'UNIT'
[Unit]
DefaultDependencies=no
Before=iscsi.service network-online.target
[Service]
Type=exec
ExecStart=/lab/bin/iscsi-target -p 127.0.0.1:3260 -T ` + target + ` -file /lab/disk1 -file /lab/disk2 -file /lab/disk3 -T ` + bootTarget + ` -file /lab/disk5
StandardOutput=append:/lab/target.log
StandardError=inherit
[Install]
WantedBy=sysinit.target
UNIT
# The target of a disk that is in use to the end is somewhere else in life: the @
# keeps this one from the last signals.
cat >/etc/systemd/system/target2.service <<'UNIT'
[Unit]
DefaultDependencies=no
IgnoreOnIsolate=yes
Before=iscsi.service network-online.target
[Service]
Type=exec
ExecStart=@/lab/bin/iscsi-target @iscsi-target -p 127.0.0.1:3261 -T ` + target + `:last -file /lab/disk4
StandardOutput=append:/lab/target2.log
StandardError=inherit
[Install]
WantedBy=sysinit.target
UNIT
# And this one is who uses it: it mounts it where the machine does not see it and so
# cannot unmount it, and stays, too.
cat >/etc/systemd/system/keeper.service <<'UNIT'
[Unit]
DefaultDependencies=no
IgnoreOnIsolate=yes
[Service]
Type=exec
ExecStart=/usr/bin/unshare --mount --propagation private /bin/bash -c 'umount /mnt/a /mnt/b && mount ` + lastDisk + ` /mnt/d && echo $$$$ >/run/keeper.pid && exec -a @keeper sleep infinity'
UNIT
# Run when all processes were killed that can be, and all is unmounted that can be.
mkdir -p /usr/lib/systemd/system-shutdown
cat >/usr/lib/systemd/system-shutdown/last <<'SCRIPT'
#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
read=$(dd if=` + lastDisk + ` bs=4096 count=16 iflag=direct 2>/dev/null | wc -c)
nsenter --mount=/proc/$(cat /run/keeper.pid)/ns/mnt sh -c 'echo written after the last signals >/mnt/d/last && sync /mnt/d/last' && wrote=yes
echo "last: iscsid $(pidof iscsid), bytes read $read, wrote $wrote" >/dev/console
SCRIPT
chmod 755 /usr/lib/systemd/system-shutdown/last
systemctl enable target.service target2.service >/dev/null 2>&1
for t in ":3260 ` + target + `" ":3261 ` + target + `:last"; do
	set -- $t
	iscsiadm -m node -o new -T $2 -p 127.0.0.1$1 >/dev/null
	iscsiadm -m node -T $2 -p 127.0.0.1$1 -o update -n node.startup -v automatic
done
iscsiadm -m node -o new -T ` + bootTarget + ` -p 127.0.0.1:3260 >/dev/null
iscsiadm -m node -T ` + bootTarget + ` -p 127.0.0.1:3260 -o update -n node.startup -v onboot
cat >/etc/systemd/system/viewer.service <<'UNIT'
[Unit]
Requires=iscsid-sysfs.service
After=iscsid-sysfs.service
[Service]
Type=oneshot
BindPaths=/run/iscsid/sys:/sys
ExecStart=/bin/sh -c 'cat /sys/class/iscsi_session/session*/targetname; cat /sys/class/net/lo/address'
StandardOutput=file:/run/viewed
UNIT
mkdir -p /etc/systemd/system/iscsid.service.d
printf '[Service]\nWatchdogSec=20\n' >/etc/systemd/system/iscsid.service.d/watchdog.conf
mkdir -p /mnt/a /mnt/b /mnt/c /mnt/d
cat >/etc/fstab <<'FSTAB'
` + byPath + `1 /mnt/a ext4 _netdev 0 2
` + byPath + `2-part1 /mnt/b ext4 _netdev,nofail 0 2
FSTAB
mkdir -p /etc/systemd/journald.conf.d
printf '[Journal]\nForwardToConsole=yes\nMaxLevelConsole=info\n' >/etc/systemd/journald.conf.d/console.conf
`

// job looks at the booted machine, restarts and kills iscsid with I/O running,
// and leaves the machine to its shutdown with dirty pages on each disk.
const job = `
set -e
fail() { echo "FAIL: $*"; journalctl -b --no-pager -u iscsid -u iscsi -u iscsi-shutdown | tail -n 40; exit 1; }
for u in iscsid.socket iscsid.service iscsi.service open-iscsi.service mnt-a.mount; do
	systemctl is-active --quiet $u || { systemctl status --no-pager $u || true; fail "$u is not active"; }
done
[ "$(systemctl is-enabled open-iscsi.service)" = alias ] || fail "open-iscsi.service is no alias"
for t in ` + target + ` ` + bootTarget + `; do
	iscsiadm -m session | grep -q " $t " || fail "no session with $t"
done
warnings=$(systemd-analyze verify --man=no iscsid.socket iscsid.service iscsid-sysfs.service iscsi.service iscsi-init.service iscsi-shutdown.service 2>&1 | grep -i iscsi) && fail "$warnings"
systemctl start mnt-b.mount
findmnt -no SOURCE,TARGET /mnt/a; findmnt -no SOURCE,TARGET /mnt/b
[ "$(pidof iscsid)" = "$(systemctl show -p MainPID --value iscsid)" ] || fail "pidof iscsid: $(pidof iscsid)"
[ "$(cat /run/iscsid.pid)" = "$(pidof iscsid)" ] || fail pid file

echo "-- what the unit leaves to iscsid"
pid=$(pidof iscsid)
grep -E '^(NoNewPrivs|Seccomp|VmLck):' /proc/$pid/status
grep -qE '^NoNewPrivs:.1' /proc/$pid/status || fail "NoNewPrivs"
grep -qE '^Seccomp:.2' /proc/$pid/status || fail "no filter of system calls"
grep -qE '^VmLck:.* 0 kB' /proc/$pid/status && fail "memory is not locked"
[ "$(cat /proc/$pid/oom_score_adj)" = -1000 ] || fail "oom_score_adj $(cat /proc/$pid/oom_score_adj)"
[ "$(readlink /proc/$pid/ns/mnt)" = "$(readlink /proc/1/ns/mnt)" ] || fail "iscsid has a mount namespace of its own"
for t in /proc/$pid/task/*; do # an I/O flusher (linux/sched.h), of no higher priority than its clients
	set -- $(sed 's/.*) //' $t/stat)
	[ $(($7 & 0x180000)) = $((0x180000)) ] && [ "${17}" = 0 ] || fail "thread: flags $7, nice ${17}"
done
for f in $(find /run/iscsid/state /var/lib/iscsi -type f); do
	[ "$(stat -c %a:%u $f)" = 600:0 ] || fail "$(ls -l $f)"
done
[ -z "$(ss -Hltnp | grep iscsid)" ] || fail "iscsid listens: $(ss -Hltnp)"
! journalctl -b --no-pager -u iscsid | grep -E 'not marked|not locked|Cannot adjust|not permitted' || fail "something is denied"
systemctl start keeper.service
timeout 60 sh -c 'until [ -s /run/keeper.pid ]; do sleep 0.2; done' || fail "no keeper: $(systemctl status --no-pager keeper)"

echo "-- names"
udevadm settle
disk=$(readlink -f ` + byPath + `2)
udevadm info -q property -n $disk | grep -E '^ID_(BUS|PATH|SERIAL|WWN|VENDOR|MODEL)' | sort
serial=$(udevadm info -q property -n $disk | sed -n 's/^ID_SERIAL=//p')
wwn=$(udevadm info -q property -n $disk | sed -n 's/^ID_WWN_WITH_EXTENSION=//p')
for part in "" p1; do
	suffix=${part:+-part1}
	for link in ` + byPath + `2$suffix by-id/scsi-$serial$suffix by-id/wwn-$wwn$suffix; do
		case $link in by-id*) link=/dev/disk/$link;; esac
		[ "$(readlink -f $link)" = $disk$part ] || fail "$link does not lead to $disk$part: $(ls -l /dev/disk/by-id /dev/disk/by-path)"
	done
done
# A disk mounted by hand: no _netdev, no fstab.
third=/dev/disk/by-id/scsi-$(udevadm info -q property -n ` + byPath + `3 | sed -n 's/^ID_SERIAL=//p')
mount $third /mnt/c

echo "-- a restart of the logins leaves disks in use alone, and takes 15 for success"
number=$(iscsiadm -m session | grep " ` + target + ` ")
systemctl restart iscsi || fail "iscsi.service: $(systemctl status --no-pager iscsi)"
systemctl is-active --quiet iscsi mnt-a.mount || fail "iscsi.service or a mount is not active"
[ "$(iscsiadm -m session | grep " ` + target + ` ")" = "$number" ] || fail "was $number, is $(iscsiadm -m session)"
iscsiadm -m session | grep -q " ` + bootTarget + ` " || fail "no session of the onboot record"

echo "-- a service with the view of /sys"
systemctl start viewer || fail "$(systemctl status --no-pager viewer iscsid-sysfs)"
for line in ` + target + ` ` + bootTarget + ` 00:00:00:00:00:00; do
	grep -qx $line /run/viewed || fail "no $line in the view: $(cat /run/viewed)"
done
[ -z "$(ls /sys/class/iscsi_session 2>/dev/null)" ] || fail "the machine's own /sys has changed"
systemctl stop iscsid-sysfs # pidof takes it for a second iscsid, which it is

echo "-- consumers 23: nsenter, nothing in the environment"
[ "$(env -i /usr/bin/nsenter --mount=/proc/1/ns/mnt --net=/proc/1/ns/net /sbin/iscsiadm -m session <&-)" = "$(iscsiadm -m session)" ] || fail nsenter

echo "-- restarts with I/O running"
dd if=/dev/zero of=/mnt/a/io bs=4k count=64 oflag=direct 2>/dev/null
( while [ ! -e /run/enough ]; do
	dd if=/dev/zero of=/mnt/a/io bs=4k count=1 oflag=direct conv=notrunc 2>/dev/null || echo error >>/run/errors
	date +%s%N >>/run/times
  done ) &
writer=$!
pause() { # the longest time between two writes, in milliseconds
	awk 'NR > 1 && $1 - last > max { max = $1 - last } { last = $1 } END { printf "%d\n", max / 1000000 }' /run/times
	: >/run/times
}
devices=$(ls -d /sys/block/nbd*/pid | wc -l)
: >/run/times; sleep 3; echo "pause without: $(pause) ms"
old=$(pidof iscsid)
systemctl restart iscsid; sleep 3; echo "pause restart: $(pause) ms"
new=$(pidof iscsid)
[ "$old" != "$new" ] || fail "iscsid was not restarted"
kill -9 "$new"; sleep 5; echo "pause kill: $(pause) ms"
[ "$(pidof iscsid)" != "$new" ] || fail "iscsid was not started again"
touch /run/enough; wait $writer
[ ! -e /run/errors ] || fail "writes have failed: $(cat /run/errors)"
[ "$(ls -d /sys/block/nbd*/pid | wc -l)" = "$devices" ] || fail "devices have come or gone"
iscsiadm -m session
[ "$(readlink -f ` + byPath + `2)" = $disk ] || fail "by-path link after the restart"

echo "-- watchdog"
beat() { systemctl show -p WatchdogTimestampMonotonic --value iscsid; }
was=$(beat)
for i in $(seq 60); do [ "$(beat)" = "$was" ] || break; sleep 1; done
[ "$(beat)" != "$was" ] || fail "iscsid does not tell systemd that it is alive"
journalctl -b --no-pager -u iscsid -p warning | grep -v '^-- ' || true

echo "-- journal, log level, doctor"
sid=$(iscsiadm -m session | sed -n 's/.*\[\([0-9]*\)\].* ` + target + ` .*/\1/p')
journalctl -b --no-pager -u iscsid ISCSI_SID=$sid -o cat | grep -q "is operational" || fail "the journal has no field ISCSI_SID"
journalctl -b --no-pager -u iscsid ISCSI_SID=$sid ISCSI_LUN=2 -o verbose | grep -q ISCSI_DEVICE=/dev/nbd || fail "the journal has no field ISCSI_DEVICE"
iscsiadm log debug && [ "$(iscsiadm log)" = debug ] && iscsiadm log info || fail "log level"
iscsiadm doctor || fail doctor

echo "-- dirty pages"
for m in a b c; do
	head -c 3000000 /dev/urandom >/mnt/$m/marker
	sha256sum </mnt/$m/marker | cut -c1-64 >/lab/sum.$m
done
systemctl --failed --no-legend --plain | grep -i -E 'iscsi|mnt' && fail "failed units"
echo done
`

// TestBoot is the life of a machine with iSCSI disks: the package, a boot that
// mounts what fstab names, restarts of iscsid under load, and a shutdown. It
// is also the proof for units and udev's rule.
func TestBoot(t *testing.T) {
	dir := t.TempDir()
	makeDisks(t, dir)
	res := run(t, guest.Job{
		Kind: guest.Systemd, Dir: dir, Timeout: 8 * time.Minute, Prepare: prepare, Script: job,
		Files: map[string]string{"goiscsi.deb": buildPackage(t), "bin/iscsi-target": filepath.Join(binDir(t), "iscsi-target")},
	})
	if t.Failed() {
		if log, err := os.ReadFile(filepath.Join(dir, "dpkg.log")); err == nil {
			t.Logf("dpkg:\n%s", log)
		}
		return
	}
	for name, most := range map[string]int{"restart": 5000, "kill": 10000} {
		m := regexp.MustCompile(`pause ` + name + `: (\d+) ms`).FindSubmatch(res.Output)
		if m == nil {
			t.Errorf("no pause of a %s measured", name)
			continue
		}
		if ms, err := strconv.Atoi(string(m[1])); err != nil || ms > most {
			t.Errorf("I/O paused for %s ms at a %s, want at most %d", m[1], name, most)
		}
	}
	for _, word := range []string{"I/O error", "Possible stuck request", "Failed unmounting", "EXT4-fs error", "SIGKILL", "Timed out stopping"} {
		if strings.Contains(string(res.Console), word) {
			t.Errorf("the console says %q:\n%s", word, guest.Tail(res.Console, 60))
		}
	}
	// What could not be unmounted was served until the machine had halted.
	if !regexp.MustCompile(`last: iscsid \d+, bytes read 65536, wrote yes`).Match(res.Console) {
		t.Errorf("a disk in use was not served to the end:\n%s", guest.Tail(res.Console, 20))
	}
	shell(t, dir, "e2fsck -fy disk4 || true") // its journal is replayed
	if text := shell(t, dir, "debugfs -R 'cat /last' disk4 2>/dev/null"); text != "written after the last signals" {
		t.Errorf("on the disk that was in use to the end: %q", text)
	}
	for m, fs := range map[string]string{"a": "disk1", "b": "disk2?offset=1048576", "c": "disk3"} {
		sum, err := os.ReadFile(filepath.Join(dir, "sum."+m))
		if err != nil {
			t.Fatal(err)
		}
		checkDisk(t, dir, fs, strings.TrimSpace(string(sum)))
	}
}
