package transcript

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/goiscsi/goiscsi/internal/version"
)

// drop is what a normalization returns for a line that does not count.
const drop = "\x00"

// A Normalization makes lines of both sides comparable.
type Normalization struct {
	Reason string
	// fixGolden is applied to open-iscsi's lines, fixOurs to ours; nil leaves
	// them.
	fixGolden, fixOurs func(line string) string
}

func (n Normalization) golden() func(string) string { return n.fixGolden }
func (n Normalization) ours() func(string) string   { return n.fixOurs }

var (
	versionLine = regexp.MustCompile(`(RECORD|^iscsiadm version|^version) 2\.1\.8$`)
	diskName    = regexp.MustCompile(`Attached scsi disk sd([a-z])`)
	hostNumber  = regexp.MustCompile(`(Host Number: |\t\tscsi|^tcp: \[)\d+(\t| Channel|\] [^ ]*,\[|$)`)
	counterLine = regexp.MustCompile(`^(\t[a-z]+_[a-z_]+: )\d+$`)
)

// Normalizations apply to the lines of all commands.
var Normalizations = []Normalization{
	{
		Reason:    "the version is our own",
		fixGolden: func(s string) string { return versionLine.ReplaceAllString(s, "$1 "+version.Version) },
	},
	{
		Reason: "a logical unit is a block device of the nbd driver, not of the SCSI disk driver",
		fixGolden: func(s string) string {
			return diskName.ReplaceAllStringFunc(s, func(m string) string {
				return "Attached scsi disk nbd" + strconv.Itoa(int(m[len(m)-1]-'a'))
			})
		},
	},
	{
		Reason:    "the kernel shows the IPv6 addresses of a connection written out in full; we show them as everywhere else",
		fixGolden: func(s string) string { return strings.ReplaceAll(s, "0000:0000:0000:0000:0000:0000:0000:0001", "::1") },
	},
	{
		Reason:    "a session keeps its host number for itself; the kernel gives numbers that are free again to new sessions",
		fixGolden: host, fixOurs: host,
	},
	{
		Reason: "interface records are in the database, not in files",
		fixGolden: func(s string) string {
			return strings.Replace(s, " is in /etc/iscsi/ifaces.", " is in the database.", 1)
		},
	},
	{
		Reason:    "counters depend on what else the machine did",
		fixGolden: counter, fixOurs: counter,
	},
	{
		Reason: "lines with what the target said and what to try next are ours; they follow the lines that scripts match",
		fixOurs: func(s string) string {
			if strings.HasPrefix(s, "iscsiadm: hint: ") {
				return drop
			}
			return s
		},
	},
}

func host(s string) string { return hostNumber.ReplaceAllString(s, "${1}N${2}") }

func counter(s string) string { return counterLine.ReplaceAllString(s, "${1}N") }

// A Deviation is a command that does something else on purpose.
type Deviation struct {
	Command string // as it stands in the transcript
	Reason  string
	change  func(want, got *Command)
}

const tg1 = "iqn.2016-01-com.example.tg1"

// Deviations are the commands that differ.
var Deviations = []Deviation{
	{
		Command: "iscsiadm -m node --loginall=all",
		Reason:  "open-iscsi takes records in the order of directory entries, which is random; ours is sorted",
		change:  sortLines,
	},
	{
		Command: "iscsiadm -m node -I testif -T " + tg1 + " -p 127.0.0.1 -o new",
		Reason:  "there is one record for a portal and an interface, whatever the tag: it exists with tag 1 and keeps it",
		change: func(want, _ *Command) {
			for i := range want.Out {
				want.Out[i] = strings.ReplaceAll(want.Out[i], "3260,-1 ", "3260,1 ")
			}
		},
	},
	{
		Command: "iscsiadm -m node -T " + tg1 + " -p 127.0.0.1 -I testif -l",
		Reason:  "there is one record for a portal and an interface, so there is no second login that fails with 15",
		change: func(want, _ *Command) {
			want.Out = slices.Compact(want.Out)
			want.Err, want.Code = nil, 0
		},
	},
	{
		Command: "iscsiadm -m iface -I testif -o delete",
		Reason:  "there is one record for a portal and an interface, so one line about it",
		change:  func(want, _ *Command) { want.Err = slices.Compact(want.Err) },
	},
	{
		Command: "iscsiadm -h",
		Reason:  "options of our own stand below open-iscsi's synopsis",
		change: func(want, got *Command) {
			if len(got.Out) > len(want.Out) {
				got.Out = got.Out[:len(want.Out)]
			}
		},
	},
	{
		Command: "iscsiadm -m node -Z",
		Reason:  "the option that is wrong is named; open-iscsi shows a question mark for it",
		change:  questionMark,
	},
	{
		Command: "iscsiadm -m session -P",
		Reason:  "the option that is wrong is named; open-iscsi shows a question mark for it",
		change:  questionMark,
	},
	{
		Command: "iscsiadm -m node -u -o new",
		Reason:  "a logout and an operation contradict each other; open-iscsi overlooks the logout, prints half a line and ends with 0",
		change: func(want, _ *Command) {
			want.Err, want.Code = []string{"iscsiadm: Invalid parameters. Login/logout and op passed in"}, 7
		},
	},
	{
		Command: "iscsiadm -m session -r /sys/devices/platform/host2/session99/target2:0:0/2:0:0:0",
		Reason:  "sessions are not in sysfs, so the path need not be there; the session is looked up by its number",
		change: func(want, _ *Command) {
			want.Err, want.Code = []string{"iscsiadm: could not read session targetname: 5", "iscsiadm: Could not get session info for sid 99"}, 22
		},
	},
	{
		Command: "iscsiadm -m host -C flashnode",
		Reason:  "for adapters that do iSCSI in hardware; without -H open-iscsi looks for host 0",
		change: func(want, _ *Command) {
			want.Err, want.Code = []string{"iscsiadm: FLASHNODE mode requires host no"}, 7
		},
	},
	{
		Command: "iscsiadm -m host -C stats",
		Reason:  "for adapters that do iSCSI in hardware; without -H open-iscsi looks for host 0",
		change: func(want, _ *Command) {
			want.Err, want.Code = []string{"iscsiadm: STATS mode requires host no"}, 7
		},
	},
	{
		Command: "iscsiadm -m node -T iqn.2016-01.com.example:a -I lan -o new",
		Reason:  "open-iscsi takes records in the order of directory entries, which is random; ours is sorted",
		change:  sortLines,
	},
	{
		Command: "iscsiadm -m discovery -t st -p 127.0.0.1 -P 2",
		Reason:  "every level above 0 shows the tree; open-iscsi shows nothing above 1 here",
		change: func(want, _ *Command) {
			for _, target := range []string{tg1, "iqn.2016-01.com.example:chap"} {
				want.Out = append(want.Out, "Target: "+target, "\tPortal: 127.0.0.1:3260,1", "\t\tIface Name: default")
			}
		},
	},
	{
		Command: "iscsiadm -m discoverydb -t st -p 127.0.0.1 -l",
		Reason:  "a login without a discovery is refused; open-iscsi overlooks it and shows the record",
		change: func(want, _ *Command) {
			want.Out, want.Err, want.Code = nil, []string{"iscsiadm: Invalid command. Possibly missing --discover argument."}, 7
		},
	},
	{
		Command: "iscsiadm -m session -r SID -P 2 -S",
		Reason:  "the second password of a session is labelled `password_in`; open-iscsi calls both `password`",
		change: func(want, _ *Command) {
			for i := len(want.Out) - 1; i >= 0; i-- {
				if label := "\t\tpassword:"; strings.HasPrefix(want.Out[i], label) {
					want.Out[i] = strings.Replace(want.Out[i], label, "\t\tpassword_in:", 1)
					return
				}
			}
		},
	},
	{
		Command: "iscsiadm -m iface -I iser -o new",
		Reason:  "interfaces are not stored in files, so it cannot be said that this one is not",
		change: func(want, _ *Command) {
			want.Err = []string{"iscsiadm: iface iser is a special interface and cannot be modified.", "iscsiadm: Could not create new interface iser."}
		},
	},
	{
		Command: "iscsiadm -k 0",
		Reason:  "the shell that the transcript was made with was killed together with the daemon; the command itself succeeds silently",
		change:  func(want, _ *Command) { want.Err, want.Code = nil, 0 },
	},
}

// questionMark puts the letter that the command ends with into their message.
func questionMark(want, _ *Command) {
	letter := want.Line[len(want.Line)-1:]
	for i, line := range want.Err {
		want.Err[i] = strings.Replace(line, "option '-?'", "option '-"+letter+"'", 1)
	}
}

func sortLines(want, got *Command) {
	for _, l := range [][]string{want.Out, got.Out, want.Err, got.Err} {
		slices.Sort(l)
	}
}

// Others are differences that no command of the transcript shows.
var Others = []string{
	"A portal with a port or tag that is no number, or out of range, is refused with 7; open-iscsi reads some number out of it.",
	"`-P`, `-d` and `-k` want numbers and are refused with 7 otherwise; open-iscsi takes 0.",
	"An unknown word for `-o` is refused wherever it stands; open-iscsi overlooks one behind a valid word.",
	"Host names match addresses in `-p` for every operation; open-iscsi does that for showing since 2.1.10 only.",
	"`-o update` of several records changes all of them or none; open-iscsi changes those before the first failure.",
	"`-o new` that finds no record to bind to another interface ends with 21; open-iscsi prints half a line and ends with 0.",
	"Discovery needs no daemon, and makes up the initiator name where there is none; open-iscsi fails with 20 or 6.",
	"A name or address that a target sends and that cannot be stored safely is left out and reported.",
	"A login that is tried again until its time is up ends with what the target did last, 5 if it refused or closed; open-iscsi ends with 5, 8 or 11, as its timers happen to run out.",
	"A login tells the portal group tag of a record that was made without one, and it is kept.",
	"`-m session -P 3` and `-m host -P 4` end with a section `Recovery:` for a session whose connection was ever lost: the number of recoveries, the time of the last, why the connection was lost, and how long the outage lasted or has lasted.",
	"`-u` also cancels logins that are going on; open-iscsi does not see them.",
	"Leading logins work on the built-in interface, too.",
	"A record in the database that cannot be read is reported and left out; open-iscsi prints no record at all.",
	"Without the right to read the database a list ends with 6 and says so; open-iscsi says that there is nothing.",
	"The daemon holds the sessions: where none runs there are none, and `-s` and `-R` end with 21 instead of 20.",
	"Operations for adapters that do iSCSI in hardware end with 27; `-o apply` has nothing to do for others and says so, as open-iscsi's.",
	"`-r` takes the mere word `session2`, too: paths of sysfs do not exist here.",
	"`-L` together with `-U` is refused; open-iscsi logs in to the group that stands last.",
	"`-C` wants a word that it knows; open-iscsi overlooks others.",
	"`-m iface -o delete` of an interface that a session uses deletes nothing; open-iscsi deletes the records that are not in use before it fails.",
	"`-m iface -o new` with a field that does not exist makes nothing and ends with 7; open-iscsi makes the interface and ends with 0.",
	"Names of interfaces must be fit for a file name; open-iscsi writes `../x` where that leads.",
	"An interface that does not exist is not found, with 6; open-iscsi names the file that it could not open, with 6.",
	"An interface with an IPv6 address can be shown; open-iscsi 2.1.8 cannot read the file that it wrote.",
	"Numbers are shown as they were stored; open-iscsi cuts `queue_depth` and `cmds_max` to 16 bits when it shows them.",
	"What is wrong with lines of iscsid.conf is said once a command; open-iscsi says it for each kind of record that it reads them for.",
	"`iface.*` in iscsid.conf does not count; open-iscsi puts it into node records. `discovery.startup` counts; with open-iscsi it does not.",
	"Without iscsid.conf new records have the values of the shipped one; open-iscsi's have those built in.",
}
