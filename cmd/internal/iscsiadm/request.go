package iscsiadm

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/goiscsi/goiscsi/cmd/internal/getopt"
	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/internal/portal"
	"github.com/goiscsi/goiscsi/nodedb"
)

// ops is a set of database operations. Most modes want none or exactly one;
// discovery takes combinations.
type ops uint

const (
	opNew ops = 1 << iota
	opDelete
	opUpdate
	opShow
	opNonpersistent
	opApply
	opApplyAll
	opLogin
	opLogout
	opImport // of nodedb mode, as the next
	opExport
)

var opNames = map[string]ops{
	"new": opNew, "delete": opDelete, "update": opUpdate, "show": opShow, "nonpersistent": opNonpersistent,
	"apply": opApply, "applyall": opApplyAll, "login": opLogin, "logout": opLogout,
	"import": opImport, "export": opExport,
}

// notGiven is the print level of a command without -P.
const notGiven = -1

// maxIfaceName is the length of the longest iface name.
const maxIfaceName = 64

// request is what the command line asks for.
type request struct {
	mode     string
	typ      nodedb.DiscoveryType // empty: not given, or not known
	portal   *portal.Portal
	target   string
	ifaces   []string
	host     string
	sid      int // 0: not given
	op       ops
	params   []nodedb.Param
	name     *string // a -n that waits for its -v
	value    *string // a -v that waits for its -n
	loginAll string
	outAll   string
	level    int // -P
	debug    int
	kill     *int
	submode  string
	pingTo   string
	trace    string // file; empty: not given
	duration int    // of the trace, seconds; 0: until ^C
	interval int    // of --watch, seconds; 0: not given

	login, logout, rescan, stats, show, discover, noWait, json, watch bool

	err error // the error of the setter that ended the parsing
}

func (r *request) init() { r.level = notGiven }

// is reports whether exactly the operation op was given.
func (r *request) is(op ops) bool { return r.op == op }

// set obeys one option. Options take effect in the order of the command line.
func (c *command) set(o *getopt.Option, value string) error {
	r := &c.req
	switch o.Long {
	case "mode":
		return c.setMode(value)
	case "portal":
		return c.setPortal(value)
	case "targetname":
		r.target = value
	case "interface":
		if value == "" || len(value) > maxIfaceName {
			// Where open-iscsi prints it.
			c.printf("Invalid iface name %s. Must be from 1 to %d characters.\n", oneLine(value), maxIfaceName)
			return exit(errcode.Inval)
		}
		r.ifaces = append(r.ifaces, value)
	case "op":
		op, ok := opNames[value]
		if ok && op&(opImport|opExport) != 0 {
			ok = c.hasMode("nodedb") // to open-iscsi's modes they are no words
		}
		if !ok {
			return c.fail(errcode.Inval, "can not recognize operation: '%s'", oneLine(value))
		}
		r.op |= op
	case "type":
		r.typ = discoveryTypes[value]
	case "name":
		r.name = &value
		r.pair()
	case "value":
		r.value = &value
		r.pair()
	case "host":
		r.host = value
	case "sid":
		return c.setSID(value)
	case "print":
		return c.number(&r.level, "info level", value, 0)
	case "debug":
		return c.number(&r.debug, "debug level", value, 0)
	case "killiscsid":
		r.kill = new(int)
		return c.number(r.kill, "iscsid priority", value, 0)
	case "login":
		r.login = true
	case "loginall":
		r.loginAll = value
		if !slices.Contains(startupWords, value) {
			return c.usageError("Invalid loginall option %s.", oneLine(value))
		}
	case "logout":
		r.logout = true
	case "logoutall":
		r.outAll = value
		if value == "onboot" || !slices.Contains(startupWords, value) {
			return c.usageError("Invalid logoutall option %s.", oneLine(value))
		}
	case "rescan":
		r.rescan = true
	case "stats":
		r.stats = true
	case "show":
		r.show = true
	case "discover":
		r.discover = true
	case "no_wait":
		r.noWait = true
	case "json":
		r.json = true
	case "submode":
		r.submode = value
	case "version":
		c.printVersion()
		return errDone
	case "help":
		c.printHelp()
		return errDone
	case "ip":
		r.pingTo = value
	case "watch":
		r.watch = true
	case "trace":
		r.trace = value
		if value == "" {
			return c.fail(errcode.Inval, "--trace needs the name of a file, or - for standard output")
		}
	case "duration":
		return c.number(&r.duration, "duration", value, 1)
	case "interval":
		// In session mode the time between two looks; elsewhere only adapters
		// that do iSCSI in hardware have a use for it.
		if c.hasMode("session") {
			return c.number(&r.interval, "interval", value, 1)
		}
	case "packetsize", "count", "index", "portal_type":
		// Only adapters that do iSCSI in hardware have use for these; the
		// operations that need them say so.
	}
	return nil
}

// startupWords are the groups of --loginall.
var startupWords = []string{"all", "manual", "automatic", "onboot"}

// discoveryTypes are the words for -t. Open-iscsi treats any other as if there
// were none.
var discoveryTypes = map[string]nodedb.DiscoveryType{
	"st": nodedb.SendTargets, "sendtargets": nodedb.SendTargets, "isns": nodedb.ISNS, "fw": nodedb.Firmware,
	"slp": typeSLP,
}

// typeSLP is a type of discovery that open-iscsi knew up to 2.1.8 and refused.
const typeSLP nodedb.DiscoveryType = "slp"

// pair appends a parameter when both of its halves are there. A half that is
// given again replaces the one that waits.
func (r *request) pair() {
	if r.name == nil || r.value == nil {
		return
	}
	r.params = append(r.params, nodedb.Param{Name: *r.name, Value: *r.value})
	r.name, r.value = nil, nil
}

// setMode also checks the options of the whole command line, before any that
// stands after the mode takes effect.
func (c *command) setMode(mode string) error {
	c.req.mode = mode
	if _, ok := modes[mode]; !ok {
		return nil // dispatch says so
	}
	for _, it := range c.items {
		switch {
		case it.Err != nil:
			c.grammar(it.Err)
			return c.notAllowed(mode, it.Err.Letter)
		case !takes(mode, it.Option):
			if it.Option.Short == 0 {
				return c.fail(errcode.Inval, "%s mode: option '--%s' is not allowed/supported", mode, it.Option.Long)
			}
			return c.notAllowed(mode, it.Option.Short)
		}
	}
	return nil
}

// hasMode reports whether the command line, here or further on, has the mode.
func (c *command) hasMode(mode string) bool {
	for _, it := range c.items {
		if it.Err == nil && it.Option.Long == "mode" && it.Value == mode {
			return true
		}
	}
	return false
}

func (c *command) notAllowed(mode string, letter byte) error {
	if mode == "discoverydb" {
		mode = "discovery" // one and the same to this message
	}
	return c.fail(errcode.Inval, "%s mode: option '-%s' is not allowed/supported", mode, getopt.Printable(string(rune(letter))))
}

// unknownTag is the portal group tag that lists show for a record that has
// none: -1 as open-iscsi prints it, an unsigned number. Scripts give lists
// back to us, so it must be read, too.
const unknownTag = "4294967295"

func (c *command) setPortal(text string) error {
	s := strings.TrimSuffix(strings.TrimSuffix(text, ","+unknownTag), ",-1")
	p, err := portal.Parse(s)
	if err != nil {
		return err
	}
	c.req.portal = &p
	return nil
}

// setSID takes a session id or a path with a component "session<id>".
func (c *command) setSID(text string) error {
	if n, err := strconv.Atoi(text); err == nil && n > 0 {
		c.req.sid = n
		return nil
	}
	for p := path.Clean(text); p != "/" && p != "."; p = path.Dir(p) {
		if id, ok := strings.CutPrefix(path.Base(p), "session"); ok {
			if n, err := strconv.Atoi(id); err == nil && n > 0 {
				c.req.sid = n
				return nil
			}
		}
		if !strings.Contains(p, "/") {
			break
		}
	}
	return c.fail(errcode.Err, "%s is an invalid session ID or path", oneLine(text))
}

// number reads a number of at least least into dst.
func (c *command) number(dst *int, what, text string, least int) error {
	n, err := strconv.Atoi(text)
	if err != nil || n < least {
		return c.fail(errcode.Inval, "Invalid %s '%s'. Must be a number from %d.", what, oneLine(text), least)
	}
	*dst = n
	return nil
}

// onePortal returns the portal of the command line with port where it names
// none.
func (r *request) onePortal(port int) portal.Portal { return r.portal.WithPort(port) }
