package iscsiadm

import (
	"log/slog"
	"time"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/nodedb"
)

// config returns what iscsid.conf says of the programs themselves.
func (c *command) config() (*nodedb.Config, error) {
	if c.conf == nil {
		conf, err := nodedb.LoadConfig(c.Paths.Config)
		if err != nil {
			return nil, err
		}
		c.conf = conf
	}
	return c.conf, nil
}

// defaults returns what iscsid.conf says of new records. Lines that it ignores
// are reported, once: they are of interest to nobody else.
func (c *command) defaults() (*nodedb.Config, error) {
	conf, err := c.config()
	if err != nil || c.told {
		return conf, err
	}
	c.told = true
	for _, w := range conf.Warnings {
		c.errorf("%s", oneLine(w))
	}
	return conf, nil
}

// database returns the node database. It is opened by each transaction.
func (c *command) database() (*nodedb.DB, error) {
	if c.db == nil {
		conf, err := c.config()
		if err != nil {
			return nil, err
		}
		c.db = nodedb.New(c.Paths.DB, nodedb.Options{Mirror: conf.Mirror(), Logger: c.logger()})
	}
	return c.db, nil
}

// view runs fn with a transaction that reads.
func (c *command) view(fn func(*nodedb.Tx) error) error {
	db, err := c.database()
	if err != nil {
		return err
	}
	return db.View(c.ctx, fn)
}

// update runs fn with a transaction that writes.
func (c *command) update(fn func(*nodedb.Tx) error) error {
	db, err := c.database()
	if err != nil {
		return err
	}
	return db.Update(c.ctx, fn)
}

// logger returns the logger for packages below: warnings always, more with
// -d.
func (c *command) logger() *slog.Logger {
	level := slog.LevelWarn
	switch {
	case c.req.debug >= 4:
		level = slog.LevelDebug
	case c.req.debug >= 1:
		level = slog.LevelInfo
	}
	return slog.New(&logHandler{c: c, level: level})
}

// daemon returns the client for iscsid. It does not connect.
func (c *command) daemon() control.Service {
	if c.ctl == nil {
		c.ctl = c.Control(c.Paths.ControlSocket())
	}
	return c.ctl
}

// startWaits are the pauses between attempts to reach a daemon that has just
// been started: 6.3 s in all.
var startWaits = []time.Duration{
	100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond,
	800 * time.Millisecond, 1600 * time.Millisecond, 3200 * time.Millisecond,
}

// startDaemon makes sure that a daemon runs: where none answers it runs
// iscsid.startup, if that is set, and waits for the daemon to answer. It
// prints what went wrong and returns an error with code 20 or another that
// keeps this command from talking to the daemon.
func (c *command) startDaemon() error {
	_, err := c.daemon().Initiator(c.ctx)
	if err == nil || !control.IsNotRunning(err) {
		return err
	}
	conf, cerr := c.config()
	if cerr != nil {
		return cerr
	}
	if cmd := conf.Startup(); cmd != "" && c.Start != nil {
		c.debugf(1, "starting iscsid: %s", cmd)
		if serr := c.Start(c.ctx, cmd, c.Stderr); serr != nil {
			c.errorf("could not start iscsid with iscsid.startup: %v", serr)
		} else {
			for _, d := range startWaits {
				if _, err = c.daemon().Initiator(c.ctx); err == nil || !control.IsNotRunning(err) {
					return err
				}
				if serr := c.Sleep(c.ctx, d); serr != nil {
					return serr
				}
			}
			if _, err = c.daemon().Initiator(c.ctx); err == nil {
				return nil
			}
		}
	}
	c.errorf("can not connect to iSCSI daemon (111)!")
	c.hintf("is iscsid running? It listens on %s; try: systemctl start iscsid", c.Paths.ControlSocket())
	return err
}

// sessions returns the sessions, none when no daemon runs: it is the daemon
// that holds them.
func (c *command) sessions(q control.SessionQuery) ([]control.Session, error) {
	l, err := c.daemon().Sessions(c.ctx, q)
	if control.IsNotRunning(err) {
		return nil, nil
	}
	return l, err
}

// session returns the session that -r names.
func (c *command) session(sid int, q control.SessionQuery) (*control.Session, error) {
	s, err := c.daemon().Session(c.ctx, sid, q)
	if errcode.Of(err) == errcode.SessNotFound || control.IsNotRunning(err) {
		c.errorf("could not read session targetname: 5")
		return nil, c.fail(errcode.SysfsLookup, "Could not get session info for sid %d", sid)
	}
	return s, err
}

// keyOf returns the key of the record that a session was made from.
func keyOf(s *control.Session) nodedb.NodeKey {
	return nodedb.NodeKey{Target: s.Target, Address: s.Persistent.Address, Port: s.Persistent.Port, Iface: s.Iface.Name}
}

// inUse returns a function that reports whether a session, or a login that is
// going on, uses a record. It fails when the daemon runs and cannot be asked.
func (c *command) inUse() (func(nodedb.NodeKey) bool, error) {
	l, err := c.sessions(control.SessionQuery{Pending: true})
	if err != nil {
		return nil, err
	}
	used := make(map[nodedb.NodeKey]bool, len(l))
	for i := range l {
		used[keyOf(&l[i])] = true
	}
	return func(k nodedb.NodeKey) bool { return used[k] }, nil
}

// killDaemon is -k.
func (c *command) killDaemon(priority int) error {
	if priority != 0 {
		c.errorf("Invalid iscsid priority %d. Priority must be 0.", priority)
		return nil // open-iscsi ends with 0 here and scripts count on it
	}
	err := c.daemon().Shutdown(c.ctx)
	if err == nil {
		return nil
	}
	if control.IsNotRunning(err) {
		c.errorf("can not connect to iSCSI daemon (111)!")
	} else {
		code := c.report(err)
		if c.ctx.Err() != nil {
			return exit(code)
		}
	}
	c.errorf("Could not stop iscsid. Trying sending iscsid SIGTERM or SIGKILL signals manually")
	return nil
}
