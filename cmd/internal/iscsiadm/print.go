package iscsiadm

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/internal/portal"
	"github.com/goiscsi/goiscsi/internal/version"
)

// printf writes to standard output. Errors show when the output is flushed
// at the end.
func (c *command) printf(format string, a ...any) { fmt.Fprintf(c.out, format, a...) }

// printJSON writes v as indented JSON. HTML is not escaped: "<" and ">" are
// ordinary characters here.
func (c *command) printJSON(v any) error {
	e := json.NewEncoder(c.out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// noJSON refuses --json where nothing is listed or shown.
func (c *command) noJSON() error {
	if !c.req.json {
		return nil
	}
	return c.fail(errcode.Inval, "--json is for lists, records, statistics and trees only")
}

func (c *command) printVersion() { c.printf("%s version %s\n", program, version.Version) }

// kernelVersion is what the first line of a full session tree says where
// open-iscsi shows the version of the kernel's transport class. Programs skip
// two lines there without looking at them.
const kernelVersion = "2.0-870"

func (c *command) printVersions() {
	c.printf("iSCSI Transport Class version %s\nversion %s\n", kernelVersion, version.Version)
}

// tag returns a portal group tag as lists show it.
func tag(tpgt int) string {
	if tpgt < 0 {
		return unknownTag
	}
	return strconv.Itoa(tpgt)
}

// treePortal returns a portal as trees of records show it: a tag that is not
// known is -1 there.
func treePortal(addr string, port, tpgt int) string {
	return portal.ListHost(addr) + ":" + strconv.Itoa(port) + "," + strconv.Itoa(tpgt)
}

// listPortal returns a portal as lists and trees of sessions show it.
func listPortal(addr string, port, tpgt int) string {
	return portal.ListHost(addr) + ":" + strconv.Itoa(port) + "," + tag(tpgt)
}

// orEmpty returns s, or the word that stands for no value.
func orEmpty(s string) string {
	if s == "" {
		return "<empty>"
	}
	return s
}

// orDefault returns s, or the word that stands for not being bound.
func orDefault(s string) string {
	if s == "" {
		return "default"
	}
	return s
}

func yesNo(b bool) string {
	if b {
		return "Yes"
	}
	return "No"
}

// printHelp prints open-iscsi's synopsis, line by line as it is there, and
// what is ours below it.
func (c *command) printHelp() {
	c.printf("%s", `iscsiadm -m discoverydb [-hV] [-d debug_level] [-P printlevel] [-t type -p ip:port -I ifaceN ... [-Dl]] | [[-p ip:port -t type] [-o operation] [-n name] [-v value] [-lD]] 
iscsiadm -m discovery [-hV] [-d debug_level] [-P printlevel] [-t type -p ip:port -I ifaceN ... [-l]] | [[-p ip:port] [-l | -D]] [-W]
iscsiadm -m node [-hV] [-d debug_level] [-P printlevel] [-L all,manual,automatic,onboot] [-W] [-U all,manual,automatic,onboot] [-S] [[-T targetname -p ip:port -I ifaceN] [-l | -u | -R | -s]] [[-o operation ] [-n name] [-v value]]
iscsiadm -m session [-hV] [-d debug_level] [-P printlevel] [-r sessionid | sysfsdir [-R | -u | -s] [-o operation] [-n name] [-v value]]
iscsiadm -m iface [-hV] [-d debug_level] [-P printlevel] [-I ifacename | -H hostno|MAC] [[-o operation ] [-n name] [-v value]] [-C ping [-a ip] [-b packetsize] [-c count] [-i interval]]
iscsiadm -m fw [-d debug_level] [-l] [-W] [[-n name] [-v value]]
iscsiadm -m host [-P printlevel] [-H hostno|MAC] [[-C chap [-x chap_tbl_idx]] | [-C flashnode [-A portal_type] [-x flashnode_idx]] | [-C stats]] [[-o operation] [-n name] [-v value]] 
iscsiadm -k priority

iscsiadm -m nodedb [-d debug_level] [-o import [-o update] | -o export] directory

iscsiadm -m session [-r sessionid] -s --watch [-i seconds]
iscsiadm -m session -r sessionid --trace file [--duration seconds]
iscsiadm doctor [--json] [--timeout seconds]
iscsiadm log [error | warn | info | debug]

All modes: [--json] prints lists, records, trees and statistics as JSON.
Passwords: -v @FILE, -v - (standard input) and -v env:NAME keep them off the command line.
`)
}

// printRecordHead and printRecordTail stand around a record that is not one
// of the database.
func (c *command) printRecordHead() { c.printf("# BEGIN RECORD %s\n", version.Version) }
func (c *command) printRecordTail() { c.printf("# END RECORD\n") }
