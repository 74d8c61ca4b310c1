//go:build integration

package boot

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/test/guest"
)

// packageJob takes the package through its life on a machine without a
// service manager, in place of open-iscsi.
const packageJob = `
set -e
export DEBIAN_FRONTEND=noninteractive PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
fail() { echo "FAIL: $*"; exit 1; }
quiet() { "$@" >/lab/log 2>&1 || { cat /lab/log; fail "$*"; }; }
install="dpkg --force-unsafe-io --force-confold -i"
# What else of this machine wants an open-iscsi is none of the test's business.
remove="dpkg --force-depends"
status() { dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2>/dev/null | tr -d ' '; }

echo "-- a machine with open-iscsi"
[ "$(status open-iscsi)" = ii ] || fail "open-iscsi is not installed"
rm -rf /etc/iscsi/nodes /etc/iscsi/send_targets /var/lib/iscsi; mkdir -p /run/lock/iscsi
echo InitiatorName=iqn.2026-11.com.example:before >/etc/iscsi/initiatorname.iscsi
echo '# kept' >>/etc/iscsi/iscsid.conf
quiet iscsiadm -m node -o new -T ` + target + ` -p 127.0.0.1:3260
quiet iscsiadm -m node -T ` + target + ` -p 127.0.0.1:3260 -o update -n node.startup -v automatic
iscsiadm -m node >/lab/before

echo "-- install"
quiet $install /lab/goiscsi.deb
[ "$(status goiscsi)" = ii ] || fail "not installed: $(status goiscsi)"
case $(status open-iscsi) in ii) fail "open-iscsi is still there";; esac
[ -z "$(dpkg -V goiscsi | grep -v ' c ')" ] || fail "$(dpkg -V goiscsi)"
[ -z "$(dpkg-divert --list '*.usr-is-merged')" ] || fail "$(dpkg-divert --list '*.usr-is-merged')"
grep -q '^# kept' /etc/iscsi/iscsid.conf || fail "iscsid.conf was replaced"
grep -q ':before$' /etc/iscsi/initiatorname.iscsi || fail "the initiator name was replaced"
# Programs look for the commands by these paths, and one for this text in it.
for f in /sbin/iscsiadm /usr/sbin/iscsiadm /usr/bin/iscsiadm; do
	case $($f -V) in *$(dpkg-query -W -f '${Version}' goiscsi)*) ;; *) fail "$f: $($f -V)";; esac
	grep -q node.session.scan $f || fail "$f does not contain node.session.scan"
done
/sbin/iscsid -v >/dev/null; /sbin/iscsi-iname >/dev/null
cmp /lab/before - <<EOF || fail "records were not taken over"
$(iscsiadm -m node)
EOF
iscsiadm -m node -T ` + target + ` -p 127.0.0.1:3260 | grep -qx 'node.startup = automatic' || fail "startup was not taken over"
for l in iscsid.socket open-iscsi.service final.target.wants/iscsi-shutdown.service remote-fs.target.wants/iscsi.service sockets.target.wants/iscsid.socket; do
	case $l in iscsid.socket) [ ! -e /etc/systemd/system/$l ] || fail "$l is masked";;
	*) [ -e /etc/systemd/system/$l ] || fail "$l is not enabled";; esac
done

echo "-- use"
truncate -s 64M /lab/disk
/lab/bin/iscsi-target -p 127.0.0.1:3260 -T ` + target + ` -file /lab/disk >/lab/target.log 2>&1 &
modprobe nbd nbds_max=0
iscsid
iscsiadm -m node -L automatic
mkfs.ext4 -q -F ` + byPath + `1
mkdir -p /mnt/d /host
mount ` + byPath + `1 /mnt/d

echo "-- consumers 23: chroot, nothing in the environment"
mount --rbind / /host
want=$(iscsiadm -m session)
[ "$(chroot /host env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin iscsiadm -m session </dev/null)" = "$want" ] || fail chroot
umount -l /host

echo "-- upgrade with a disk in use"
pid=$(pidof iscsid)
quiet $install /lab/newer.deb
[ "$(pidof iscsid)" = "$pid" ] || fail "iscsid did not survive"
echo text >/mnt/d/file; sync -f /mnt/d/file

echo "-- no removal with a disk in use"
! $remove -r goiscsi >/lab/log 2>&1 || fail "removed"
grep -q 'in use' /lab/log || fail "no reason: $(cat /lab/log)"
[ "$(iscsiadm -m session)" = "$want" ] || fail "the session is gone"
grep -q text /mnt/d/file
umount /mnt/d
iscsiadm -m node >/lab/records

echo "-- removal"
quiet $remove -r goiscsi
[ -z "$(pidof iscsid)" ] || fail "iscsid runs"
! ls /sys/block/nbd*/pid 2>/dev/null || fail "a device is left"
[ ! -e ` + byPath + `1 ] || fail "a link is left"
for f in /sbin/iscsiadm /usr/bin/iscsiadm /usr/sbin/iscsid /lib/udev/rules.d/59-iscsid.rules /lib/systemd/system/iscsid.service; do
	[ ! -e $f ] || fail "$f is left"
done
[ -e /var/lib/iscsi/nodes.db ] && [ -e /etc/iscsi/iscsid.conf ] || fail "records or settings are gone"

echo "-- again, and purge"
quiet $install /lab/goiscsi.deb
[ "$(iscsiadm -m node)" = "$(cat /lab/records)" ] || fail "records were $(cat /lab/records), are $(iscsiadm -m node)"
quiet $remove -P goiscsi
[ ! -e /var/lib/iscsi/nodes.db ] && [ ! -e /etc/iscsi/initiatorname.iscsi ] || fail "files are left"
echo done
`

// TestPackage installs, upgrades, refuses to remove, removes and purges the
// package on a machine that has open-iscsi and its records. It also runs
// iscsiadm as numbers 22 and 23 of the must-haves of programs that call it do:
// by its old paths, and under chroot without an environment.
func TestPackage(t *testing.T) {
	run(t, guest.Job{
		Timeout: 8 * time.Minute, Script: packageJob,
		Files: map[string]string{
			"goiscsi.deb": buildPackage(t), "newer.deb": buildPackage(t, "VERSION=99.0"),
			"bin/iscsi-target": filepath.Join(binDir(t), "iscsi-target"),
		},
	})
}
