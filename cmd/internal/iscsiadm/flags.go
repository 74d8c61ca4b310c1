package iscsiadm

import (
	"strings"

	"github.com/goiscsi/goiscsi/cmd/internal/getopt"
)

// options holds every option, in open-iscsi's order. This table is the only
// place where they are listed: the argument translator, the cli flags, the
// check per mode, and the tests of the manual page and of the completions use
// it.
var options = getopt.Table{
	{Short: 'm', Long: "mode", Arg: "mode", Help: "mode of operation"},
	{Short: 'p', Long: "portal", Arg: "address[:port][,tpgt]", Help: "portal"},
	{Short: 'T', Long: "targetname", Arg: "name", Help: "target name"},
	{Short: 'I', Long: "interface", Arg: "name", Help: "iface to bind to"},
	{Short: 'o', Long: "op", Arg: "operation", Help: "database operation"},
	{Short: 't', Long: "type", Arg: "type", Help: "discovery type"},
	{Short: 'n', Long: "name", Arg: "field", Help: "record field"},
	{Short: 'v', Long: "value", Arg: "value", Help: "value for the field"},
	{Short: 'H', Long: "host", Arg: "number|MAC", Help: "SCSI host"},
	{Short: 'r', Long: "sid", Arg: "sid|path", Help: "session id or path ending in session<id>"},
	{Short: 'R', Long: "rescan", Help: "rescan sessions"},
	{Short: 'P', Long: "print", Arg: "level", Help: "print level"},
	{Short: 'D', Long: "discover", Help: "perform discovery"},
	{Short: 'l', Long: "login", Help: "log in"},
	{Short: 'L', Long: "loginall", Arg: "group", Help: "log in to all records of a startup group"},
	{Short: 'u', Long: "logout", Help: "log out"},
	{Short: 'U', Long: "logoutall", Arg: "group", Help: "log out of all sessions of a startup group"},
	{Short: 's', Long: "stats", Help: "show session statistics"},
	{Short: 'k', Long: "killiscsid", Arg: "priority", Help: "stop iscsid"},
	{Short: 'd', Long: "debug", Arg: "level", Help: "debug level, 0 to 8"},
	{Short: 'S', Long: "show", Help: "show secrets unmasked"},
	{Short: 'V', Long: "version", Help: "show the version"},
	{Short: 'h', Long: "help", Help: "show this help"},
	{Short: 'C', Long: "submode", Arg: "submode", Help: "ping, chap, flashnode or stats"},
	{Short: 'a', Long: "ip", Arg: "address", Help: "address to ping"},
	{Short: 'b', Long: "packetsize", Arg: "bytes", Help: "ping packet size"},
	{Short: 'c', Long: "count", Arg: "number", Help: "number of pings"},
	{Short: 'i', Long: "interval", Arg: "seconds", Help: "time between pings"},
	{Short: 'x', Long: "index", Arg: "index", Help: "CHAP table or flashnode index"},
	{Short: 'A', Long: "portal_type", Arg: "ipv4|ipv6", Help: "flashnode portal type"},
	{Short: 'W', Long: "no_wait", Help: "do not wait for logins"},
	{Long: "json", Help: "print JSON"},
	{Long: "watch", Help: "show statistics anew every --interval seconds"},
	{Long: "trace", Arg: "file", Help: "write the PDUs of a session to a file for Wireshark"},
	{Long: "duration", Arg: "seconds", Help: "how long to trace"},
}

// modes holds, for every mode, the letters of the options that it takes. Of
// options without a letter, session mode takes all, the others --json.
var modes = map[string]string{
	"discovery":   "DSIPdmntplov",
	"discoverydb": "DSIPdmntplov",
	"node":        "RsPIdmlSonvupTULW",
	"session":     "PiRdrmusonSv",
	"host":        "CHdmPotnvxA",
	"iface":       "HIdnvmPoCabci",
	"fw":          "dmlWnv",
	"nodedb":      "mdo", // ours
}

// modeWords names the modes to somebody who has named none of them.
const modeWords = "discovery, discoverydb, node, session, iface, host, fw, nodedb"

// takes reports whether mode accepts o.
func takes(mode string, o *getopt.Option) bool {
	if o.Short == 0 {
		return mode == "session" || o.Long == "json"
	}
	return strings.IndexByte(modes[mode], o.Short) >= 0
}
