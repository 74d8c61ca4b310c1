package iscsiadm

import "strings"

// An option is one command line option. The table below is the only place
// where options are listed: the argument translator, the cli flags, the check
// per mode, and the tests of the manual page and of the completions use it.
type option struct {
	short byte   // 0 where there is only a long form
	long  string // without dashes
	arg   string // name of the argument in texts, empty for a switch
	help  string // one line, for completions
}

// options holds every option in the order in which getopt names the
// candidates for an ambiguous prefix.
var options = [...]option{
	{'m', "mode", "mode", "mode of operation"},
	{'p', "portal", "address[:port][,tpgt]", "portal"},
	{'T', "targetname", "name", "target name"},
	{'I', "interface", "name", "iface to bind to"},
	{'o', "op", "operation", "database operation"},
	{'t', "type", "type", "discovery type"},
	{'n', "name", "field", "record field"},
	{'v', "value", "value", "value for the field"},
	{'H', "host", "number|MAC", "SCSI host"},
	{'r', "sid", "sid|path", "session id or path ending in session<id>"},
	{'R', "rescan", "", "rescan sessions"},
	{'P', "print", "level", "print level"},
	{'D', "discover", "", "perform discovery"},
	{'l', "login", "", "log in"},
	{'L', "loginall", "group", "log in to all records of a startup group"},
	{'u', "logout", "", "log out"},
	{'U', "logoutall", "group", "log out of all sessions of a startup group"},
	{'s', "stats", "", "show session statistics"},
	{'k', "killiscsid", "priority", "stop iscsid"},
	{'d', "debug", "level", "debug level, 0 to 8"},
	{'S', "show", "", "show secrets unmasked"},
	{'V', "version", "", "show the version"},
	{'h', "help", "", "show this help"},
	{'C', "submode", "submode", "ping, chap, flashnode or stats"},
	{'a', "ip", "address", "address to ping"},
	{'b', "packetsize", "bytes", "ping packet size"},
	{'c', "count", "number", "number of pings"},
	{'i', "interval", "seconds", "time between pings"},
	{'x', "index", "index", "CHAP table or flashnode index"},
	{'A', "portal_type", "ipv4|ipv6", "flashnode portal type"},
	{'W', "no_wait", "", "do not wait for logins"},
	{0, "json", "", "print JSON"},
}

// byShort returns the option with the letter c, nil if there is none.
func byShort(c byte) *option {
	if c == 0 {
		return nil
	}
	for i := range options {
		if options[i].short == c {
			return &options[i]
		}
	}
	return nil
}

// byLong returns the option whose long name is name or, if there is none,
// those of which name is a prefix.
func byLong(name string) (exact *option, candidates []*option) {
	for i := range options {
		switch o := &options[i]; {
		case o.long == name:
			return o, nil
		case strings.HasPrefix(o.long, name):
			candidates = append(candidates, o)
		}
	}
	return nil, candidates
}

// modes holds, for every mode, the letters of the options that it takes. The
// option --json, which has no letter, is taken everywhere.
var modes = map[string]string{
	"discovery":   "DSIPdmntplov",
	"discoverydb": "DSIPdmntplov",
	"node":        "RsPIdmlSonvupTULW",
	"session":     "PiRdrmusonSv",
	"host":        "CHdmPotnvxA",
	"iface":       "HIdnvmPoCabci",
	"fw":          "dmlWnv",
}

// takes reports whether mode accepts o.
func takes(mode string, o *option) bool {
	return o.short == 0 || strings.IndexByte(modes[mode], o.short) >= 0
}
