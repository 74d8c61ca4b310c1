package doctor

import (
	"path/filepath"
	"strconv"
	"strings"

	"github.com/goiscsi/goiscsi/nodedb"
)

// kernel looks for the nbd driver.
func (e *examination) kernel() {
	const check = "kernel nbd"
	dir := filepath.Join(e.Paths.Sys, "module/nbd")
	if _, err := e.System.Stat(dir); err != nil {
		if !e.System.ModuleAvailable("nbd") {
			const advice = "install the kernel's nbd module (CONFIG_BLK_DEV_NBD), or set node.session.attach = socket to serve disks on unix sockets"
			switch e.attach() {
			case "socket", "none":
				e.note(check, "the kernel has no nbd driver, and iscsid.conf does not ask for it", "")
			case "nbd":
				e.problem(check, "the kernel has no nbd driver: logins to disks fail", advice)
			default:
				e.warning(check, "the kernel has no nbd driver: disks are served on unix sockets, not as block devices", advice)
			}
			return
		}
		e.note(check, "the driver is there but not loaded; iscsid loads it when it needs it", "modprobe nbd, to see that it can be loaded")
		return
	}
	if err := e.System.NBDFamily(); err != nil {
		e.problem(check, "the driver does not answer over netlink: "+err.Error(), "nbd needs Linux 4.12 or newer; rmmod nbd; modprobe nbd")
		return
	}
	text := "loaded, and answers over netlink"
	if n, ok := e.number(filepath.Join(dir, "parameters/nbds_max")); ok {
		text += ", " + plural(n, "device") + " at start (more are made as they are needed)"
	}
	e.ok(check, "%s", text)
	if n, ok := e.number(filepath.Join(dir, "parameters/max_part")); ok && n == 0 {
		e.warning("nbd partitions", "the driver makes no partitions (max_part is 0)", "echo options nbd max_part=31 > /etc/modprobe.d/nbd.conf, and load the module anew")
	}
}

// attach is what iscsid.conf says of how disks are offered.
func (e *examination) attach() string {
	if e.conf == nil {
		return ""
	}
	v, _ := e.conf.Lookup(nodedb.FieldAttach)
	return v
}

// number reads a file with a number.
func (e *examination) number(path string) (int, bool) {
	b, err := e.System.ReadFile(path)
	if err != nil {
		return 0, false
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	return n, err == nil
}

// otherInitiator looks whether the kernel's own initiator is at work, too.
func (e *examination) otherInitiator() {
	const check = "other initiator"
	if n := len(e.System.Glob(filepath.Join(e.Paths.Sys, "class/iscsi_session/session*"))); n > 0 {
		e.warning(check, "the kernel's own initiator has "+plural(n, "session")+": two programs with one initiator name disturb each other at a target",
			"log these out with open-iscsi's iscsiadm, or give one of the two another initiator name (docs/migrating.md)")
		return
	}
	e.ok(check, "the kernel's own initiator has no sessions")
}

// ruleDirs are where udev looks for rules.
var ruleDirs = []string{"/etc/udev/rules.d", "/run/udev/rules.d", "/usr/local/lib/udev/rules.d", "/usr/lib/udev/rules.d", "/lib/udev/rules.d"}

// ruleFile is the name of our rule.
const ruleFile = "59-iscsid.rules"

// udev looks for the rule that makes links and properties.
func (e *examination) udev() {
	const check = "udev"
	if _, err := e.System.Stat("/run/udev/control"); err != nil {
		e.note(check, "udev does not run; iscsid makes the links in /dev/disk/by-path and by-id itself", "")
		return
	}
	for _, dir := range ruleDirs {
		if _, err := e.System.Stat(filepath.Join(dir, ruleFile)); err == nil {
			e.ok(check, "runs, and has %s", filepath.Join(dir, ruleFile))
			return
		}
	}
	e.warning(check, "runs without "+ruleFile+": disks get no links in /dev/disk/by-id, and systemd does not wait for them",
		"copy "+ruleFile+" (internal/packaging/udev) to /etc/udev/rules.d and run udevadm control --reload")
}

// clock looks whether the time can be right. iSCSI does not need it, but logs
// and what is stored on the disks do.
func (e *examination) clock() {
	const check = "clock"
	const firstRelease = 2026
	if y := e.System.Now().Year(); y < firstRelease {
		e.problem(check, "it is "+strconv.Itoa(y)+" by the clock of this machine", "set the clock, and have NTP keep it")
		return
	}
	switch synced, err := e.System.ClockSynchronised(); {
	case err != nil:
		e.note(check, "nobody knows whether it is right: "+err.Error(), "")
	case !synced:
		e.warning(check, "nothing keeps it right", "run systemd-timesyncd, chrony or ntpd; times in logs of initiator and target cannot be compared otherwise")
	default:
		e.ok(check, "kept right by NTP or the like")
	}
}
