package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/goiscsi/goiscsi/nodedb"
	"github.com/goiscsi/goiscsi/pdu"
)

// initiatorName reads the file with our name.
func (e *examination) initiatorName() {
	const check = "initiator name"
	path := e.Paths.InitiatorName
	in, err := nodedb.LoadInitiatorName(path)
	switch {
	case err != nil && e.denied(check, path, err):
	case errors.Is(err, fs.ErrNotExist):
		e.problem(check, path+" is missing", "echo InitiatorName=$(iscsi-iname) > "+path)
	case err != nil:
		e.problem(check, err.Error(), "it has to have a line InitiatorName=iqn.…; iscsi-iname makes such a name")
	default:
		const advice = "iscsi-iname makes a valid one; it begins with iqn., eui. or naa."
		switch err := pdu.ValidateName(in.Name); {
		case err != nil:
			e.problem(check, fmt.Sprintf("%q cannot be used: %v", in.Name, err), advice)
		case !hasNameType(in.Name):
			e.warning(check, fmt.Sprintf("%q is no iSCSI name by RFC 7143: many targets refuse it", in.Name), advice)
		default:
			e.ok(check, "%s", in.Name)
		}
	}
}

// hasNameType reports whether a name has one of the types of RFC 7143 section
// 4.2.7.2.
func hasNameType(name string) bool {
	for _, t := range []string{"iqn.", "eui.", "naa."} {
		if strings.HasPrefix(name, t) {
			return true
		}
	}
	return false
}

// configuration reads iscsid.conf.
func (e *examination) configuration() {
	const check = "iscsid.conf"
	path := e.Paths.Config
	conf, err := nodedb.LoadConfig(path)
	if err != nil {
		if !e.denied(check, path, err) {
			e.problem(check, err.Error(), "")
		}
		return
	}
	e.conf = conf
	for _, w := range conf.Warnings {
		e.warning(check, w, "correct the line in "+path)
	}
	secret := false
	for _, name := range []string{"node.session.auth.password", "node.session.auth.password_in", "discovery.sendtargets.auth.password", "discovery.sendtargets.auth.password_in"} {
		_, ok := conf.Lookup(name)
		secret = secret || ok
	}
	if st, err := e.System.Stat(path); secret && err == nil && st.Mode().Perm()&0o077 != 0 {
		e.warning(check, fmt.Sprintf("%s has passwords and mode %#o", path, st.Mode().Perm()), "chmod 600 "+path)
	} else if len(conf.Warnings) == 0 {
		e.ok(check, "%s", map[bool]string{true: "understood", false: "not there; the built-in settings hold"}[err == nil])
	}
}

// database opens the node database and keeps the records for other checks.
func (e *examination) database() {
	const check = "node database"
	path := e.Paths.DB
	st, err := e.System.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.note(check, "there are no records yet", "iscsiadm -m discovery -t sendtargets -p PORTAL finds targets")
		return
	case err != nil && e.denied(check, path, err):
		return
	case err != nil:
		e.problem(check, err.Error(), "")
		return
	}
	if st.Mode().Perm()&0o077 != 0 {
		e.warning(check, fmt.Sprintf("%s can hold passwords and has mode %#o", path, st.Mode().Perm()), "chmod 600 "+path)
	}
	err = nodedb.New(path, nodedb.Options{}).View(e.ctx, func(tx *nodedb.Tx) error {
		e.nodes = tx.Nodes(nodedb.Match{})
		return nil
	})
	switch {
	case err != nil && e.denied(check, path, err):
	case err != nil:
		e.problem(check, strings.Join(nodedb.Lines(err), "; "), "restore "+path+" from a backup, or remove it and run discovery again")
	default:
		e.ok(check, "%s in %s", plural(len(e.nodes), "record"), path)
	}
}

// Lengths of CHAP secrets in bytes. RFC 7143 section 9.2.1 wants 96 random bits; many
// targets take no more than 16 bytes.
const (
	minSecret   = 12
	usualSecret = 16
)

// chap looks at the credentials of each record. Secrets are not shown.
func (e *examination) chap() {
	const check = "CHAP"
	with, bad := 0, 0
	for _, n := range e.nodes {
		m := n.Map()
		get := func(field string) string { return m["node.session.auth."+field] }
		user, password, userIn, passwordIn := get("username"), get("password"), get("username_in"), get("password_in")
		method := get("authmethod")
		where := fmt.Sprintf("%s at %s through %s: ", n.Target(), hostPort(n.Address(), n.Port()), n.IfaceName())
		say := func(s Status, text, advice string) {
			bad++
			e.found.add(check, s, where+text, advice)
		}
		if password != "" {
			with++
		}
		switch {
		case password == "" && method == "CHAP":
			say(Problem, "authmethod is CHAP, but there is no password: the login goes without authentication", "set node.session.auth.username and password")
			continue
		case password == "" && (passwordIn != "" || userIn != ""):
			say(Problem, "the target's user name or password is set, but none of our own: no authentication takes place",
				"set node.session.auth.username and password, too: the target is only asked to prove itself after we have")
			continue
		case password == "":
			continue
		case method == "None":
			say(Note, "authmethod is None, but a password is set: CHAP is used", "set node.session.auth.authmethod to CHAP, or the password to nothing")
		}
		if user == "" {
			say(Problem, "a password without a user name", "set node.session.auth.username")
		}
		if password == passwordIn {
			say(Problem, "the passwords of both directions are the same, which RFC 7143 forbids: the login is refused", "change node.session.auth.password_in, here and at the target")
		}
		for _, s := range []struct{ field, value string }{{"password", password}, {"password_in", passwordIn}} {
			switch n := len(s.value); {
			case n > 0 && n < minSecret:
				say(Warning, fmt.Sprintf("%s has %d bytes: too short for a secret, and many targets take none below %d", s.field, n, minSecret),
					fmt.Sprintf("use %d to %d random characters", minSecret, usualSecret))
			case n > usualSecret:
				say(Note, fmt.Sprintf("%s has %d bytes, which some targets do not take", s.field, n), "")
			}
		}
		if passwordIn != "" && userIn == "" {
			say(Warning, "password_in without username_in", "set node.session.auth.username_in to the name that the target gives")
		}
	}
	switch {
	case bad > 0 || len(e.nodes) == 0:
	case with == 0:
		e.ok(check, "no record has credentials")
	default:
		e.ok(check, "%s with credentials that can be right", plural(with, "record"))
	}
}
