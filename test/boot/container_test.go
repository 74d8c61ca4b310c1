//go:build integration

package boot

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/goiscsi/goiscsi/test/guest"
)

// containerJob makes by hand what a container engine makes of the recipe: a
// root with the three commands and the machine's directories, in a mount
// namespace of its own.
const containerJob = `
set -e
fail() { echo "FAIL: $*"; cat /lab/iscsid.log; exit 1; }
truncate -s 64M /lab/disk
/lab/bin/iscsi-target -p 127.0.0.1:3260 -T ` + target + ` -file /lab/disk >/lab/target.log 2>&1 &
modprobe nbd nbds_max=0
mkdir -p /root1/usr/sbin /root1/dev /root1/sys /root1/proc /root1/tmp /root1/run/iscsid /root1/etc/iscsi /root1/var/lib/iscsi /run/iscsid
rm -rf /etc/iscsi /var/lib/iscsi; mkdir -p /etc/iscsi /var/lib/iscsi
cp /lab/bin/iscsiadm /lab/bin/iscsid /lab/bin/iscsi-iname /root1/usr/sbin/
for d in dev sys proc run/iscsid etc/iscsi var/lib/iscsi; do mount --rbind /$d /root1/$d; done
inside() { unshare --mount --propagation slave chroot /root1 "$@" </dev/null; }
# An engine detaches the machine's mounts from the container's namespace; here
# they stay, so they must follow the machine's.
mount --make-rshared /
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
unshare --mount --propagation slave chroot /root1 $ENTRYPOINT </dev/null >/lab/iscsid.log 2>&1 &
daemon=$!
for i in $(seq 300); do [ ! -S /run/iscsid/control.sock ] || break; sleep 0.1; done
inside /usr/sbin/iscsiadm -m discovery -t st -p 127.0.0.1 || fail discovery
inside /usr/sbin/iscsiadm -m node -l || fail login
[ -b "$(readlink -f ` + byPath + `1)" ] || fail "the machine has no disk"
mkfs.ext4 -q -F ` + byPath + `1
mkdir -p /mnt/d; mount ` + byPath + `1 /mnt/d
echo text >/mnt/d/file
# A new container takes over from the old one.
kill $daemon; wait $daemon || fail "iscsid ended with $?"
unshare --mount --propagation slave chroot /root1 $ENTRYPOINT </dev/null >>/lab/iscsid.log 2>&1 &
daemon=$!
sync -f /mnt/d/file
umount /mnt/d
inside /usr/sbin/iscsiadm -m node -u || fail logout
! ls /sys/block/nbd*/pid 2>/dev/null || fail "a device is left"
kill $daemon; wait $daemon || fail "iscsid ended with $?"
`

// TestContainer runs the commands as the container recipe does, with nothing
// else in their root.
func TestContainer(t *testing.T) {
	recipe, err := os.ReadFile(filepath.Join(checkout, "internal/packaging/container/Containerfile"))
	if err != nil {
		t.Fatal(err)
	}
	_, entry, ok := strings.Cut(string(recipe), "\nENTRYPOINT ")
	entry = strings.NewReplacer("[", "", "]", "", `"`, "", ",", "").Replace(strings.TrimSpace(entry))
	if !ok || !strings.HasPrefix(entry, "/usr/sbin/iscsid ") {
		t.Fatalf("the recipe starts %q", entry)
	}
	run(t, guest.Job{
		Timeout: 3 * time.Minute, Script: containerJob, Env: []string{"ENTRYPOINT=" + entry},
		Files: map[string]string{"bin": binDir(t)},
	})
}
