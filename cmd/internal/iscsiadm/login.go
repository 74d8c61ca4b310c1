package iscsiadm

import (
	"fmt"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/nodedb"
)

// loginOptions say how records are logged in to.
type loginOptions struct {
	noWait  bool
	another bool // one more session, however many there are
	iface   string
}

// attempt is one login that has been asked for.
type attempt struct {
	node *nodedb.Node
	req  *control.LoginRequest
	text string // "[iface: …, target: …, portal: …]"
}

// outcome is what became of an attempt.
type outcome struct {
	session *control.Session
	err     error
}

// login logs in to all records: every request is sent before any answer is
// waited for, so that a portal that does not answer holds up nothing. The code
// is that of the first record that could not even be tried, else that of the
// first one that failed.
func (c *command) login(nodes []*nodedb.Node, o loginOptions) error {
	code, err := c.loginCode(nodes, o)
	if err != nil || code == errcode.Success {
		return err
	}
	if o.iface != "" {
		return c.fail(code, "Could not log into all portals on %s, trying next interface", o.iface)
	}
	return c.fail(code, "Could not log into all portals")
}

// loginCode is login without its last line. The error is for what keeps the
// whole command from going on; failed logins are only in the code.
func (c *command) loginCode(nodes []*nodedb.Node, o loginOptions) (errcode.Code, error) {
	if err := c.startDaemon(); err != nil {
		if errcode.Of(err) != errcode.ISCSIDNotConn {
			return 0, err
		}
		return c.loginUnreachable(nodes), nil
	}
	attempts, first, err := c.attempts(nodes, o)
	if err != nil {
		return 0, err
	}
	for _, a := range attempts {
		many := ""
		if a.req.Multiple {
			many = " (multiple)"
		}
		c.printf("Logging in to %s%s\n", a.text, many)
	}
	_ = c.out.Flush()

	p := c.newProgress("Logging in", len(attempts))
	defer p.close()
	results := start(len(attempts), func(i int) outcome {
		defer p.step()
		s, err := c.daemon().Login(c.ctx, attempts[i].req)
		return outcome{s, err}
	})
	wait := errcode.Success
	var learnt []*nodedb.Node
	for i, r := range results {
		a, res := attempts[i], await(p, r)
		switch {
		case res.err == nil && o.noWait:
		case res.err == nil:
			c.printf("Login to %s successful.\n", a.text)
			_ = c.out.Flush()
			if a.node.TPGT() < 0 && res.session.TPGT >= 0 {
				a.node.SetTPGT(res.session.TPGT)
				learnt = append(learnt, a.node)
			}
		case c.ctx.Err() != nil: // the command ends, which is said once
		default:
			c.errorf("Could not login to %s.", a.text)
			c.initiatorError(res.err)
			if wait == errcode.Success {
				wait = errcode.Of(res.err)
			}
		}
	}
	if err := c.interrupted(); err != nil {
		return 0, err
	}
	if err := c.learnTags(learnt); err != nil {
		return 0, err
	}
	if first != errcode.Success {
		return first, nil
	}
	return wait, nil
}

// attempts works out which logins the records ask for: as many sessions as
// node.session.nr_sessions says, less those that there are. Records that have
// them all are reported, and give the code that is returned.
func (c *command) attempts(nodes []*nodedb.Node, o loginOptions) ([]attempt, errcode.Code, error) {
	present := make(map[nodedb.NodeKey]int)
	l, err := c.sessions(control.SessionQuery{})
	if err != nil {
		return nil, 0, err
	}
	for i := range l {
		present[keyOf(&l[i])]++
	}
	first := errcode.Success
	var out []attempt
	for _, n := range nodes {
		want := max(1, n.Int(nodedb.FieldNrSessions))
		have := present[n.Key()]
		if !o.another && have >= want {
			c.errorf("%s: %d session%s requested, but %d already present.", n.IfaceName(), want, plural(want), have)
			if first == errcode.Success {
				first = errcode.SessExists
			}
			continue
		}
		req := &control.LoginRequest{Record: n.Map(), NoWait: o.noWait, Multiple: o.another || want > 1}
		if !o.another && want > 1 {
			req.Limit = want
		}
		count := want - have
		if o.another {
			count = 1
		}
		for range count {
			out = append(out, attempt{node: n, req: req, text: nodeText(n.Key())})
		}
	}
	return out, first, nil
}

// loginUnreachable reports every record as failed because no daemon runs.
func (c *command) loginUnreachable(nodes []*nodedb.Node) errcode.Code {
	const code = errcode.ISCSIDNotConn
	for _, n := range nodes {
		text := nodeText(n.Key())
		c.printf("Logging in to %s\n", text)
		c.errorf("Could not login to %s.", text)
		c.errorf("initiator reported error (%d - %s)", int(code), code)
	}
	return code
}

// learnTags stores the portal group tags that logins have told about records
// that were made without one.
func (c *command) learnTags(nodes []*nodedb.Node) error {
	if len(nodes) == 0 {
		return nil
	}
	return c.update(func(tx *nodedb.Tx) error {
		for _, n := range nodes {
			stored, err := tx.Node(n.Key())
			if err != nil || stored.TPGT() >= 0 {
				continue // deleted or learnt by somebody else in the meantime
			}
			stored.SetTPGT(n.TPGT())
			if err := tx.PutNode(stored); err != nil {
				return err
			}
		}
		return nil
	})
}

// nodeText is the form in which messages name a record.
func nodeText(k nodedb.NodeKey) string {
	return fmt.Sprintf("[iface: %s, target: %s, portal: %s,%d]", k.Iface, k.Target, k.Address, k.Port)
}

func plural(n int) string {
	if n == 1 {
		return ""
	}
	return "s"
}
