package docs

import (
	"slices"
	"testing"

	"github.com/goiscsi/goiscsi/internal/docshell"
)

// root has README.md and docs/. testdata has links to them, because that is what
// the guest gets to see.
const root = "testdata"

// inGuest are the programs whose commands are run in the guest.
var inGuest = []string{"iscsiadm", "iscsid", "iscsi-target", "iscsi-iname", "curl", "mkfs.ext4", "mkdir"}

// exceptions are the commands that are not run, with the reason; what they name
// must exist. A value that begins with "file:" names a script or test that is run
// and has the command's first words in it.
var exceptions = map[string]string{
	"iscsiadm -m session -s --watch":                                            "does not end by itself; see the tests of iscsiadm",
	"iscsiadm -m session -r 1 -s --watch -i 5":                                  "does not end by itself; see the tests of iscsiadm",
	"iscsiadm -m session -r 1 --trace session.pcapng --duration 30":             "takes 30 seconds; see the tests of iscsiadm",
	"iscsiadm -m session -r 1 --trace - | wireshark -k -i -":                    "needs a display; see the tests of iscsiadm",
	"journalctl -u iscsid ISCSI_SID=1":                                          "wants a machine that runs systemd; test/boot asks its journal like this",
	"journalctl -u iscsid ISCSI_LUN=1 -o json":                                  "as the one before",
	"unshare --mount sh -c 'mount --bind /run/iscsid/sys /sys && exec PROGRAM'": "PROGRAM is for the reader to fill in; test/e2e does so with several",
	"systemctl daemon-reload && udevadm control --reload":                       "wants a machine that runs systemd; the package's postinst does so in test/boot",
	"systemctl enable --now iscsid.socket iscsi.service iscsi-shutdown.service": "wants a machine that runs systemd; test/boot has these units enabled",
	"test/bench/run -parts export,digests -rounds 9":                            "needs a quiet machine for minutes",

	"FSTYPE=ext4 python3 test-open-iscsi.py -v -t TARGET -i ADDRESS:PORT -s 1 -D /dev/disk/by-path/ip-ADDRESS:PORT-iscsi-TARGET-lun-N": "wants open-iscsi's source, and ten minutes; the page says what came of it",
}

// blocks returns the commands of all pages that stand in blocks of code.
func blocks(t *testing.T) []docshell.Command {
	t.Helper()
	pages, err := docshell.Pages(root)
	if err != nil {
		t.Fatal(err)
	}
	var all []docshell.Command
	for _, page := range pages {
		commands, err := docshell.Read(root, page)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, slices.DeleteFunc(commands, func(c docshell.Command) bool { return c.Inline })...)
	}
	return all
}
