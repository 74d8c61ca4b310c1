package iscsiadm

import (
	"bufio"
	"context"
	"errors"
	"io"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/cmd/internal/doctor"
	"github.com/goiscsi/goiscsi/cmd/internal/getopt"
	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/internal/paths"
	"github.com/goiscsi/goiscsi/nodedb"
)

// Env is everything that a command needs of the world, so that tests can
// give it another one.
type Env struct {
	// Args is the command line, the program's name first.
	Args   []string
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	Paths  paths.Paths
	// Getenv reads the environment, for passwords that are given there.
	Getenv func(string) string
	// Control returns a client for the daemon that listens on socket. It must
	// not connect yet.
	Control func(socket string) control.Service
	// Start runs iscsid.startup, the command that starts the daemon.
	Start func(ctx context.Context, command string, stderr io.Writer) error
	// Discover asks a portal for its targets (SendTargets), once.
	Discover func(context.Context, initiator.DiscoveryConfig) ([]initiator.DiscoveredPortal, error)
	// DiscoverISNS asks an iSNS server for its targets. nil when there is no
	// support for it.
	DiscoverISNS func(ctx context.Context, cfg ISNSConfig) ([]initiator.DiscoveredPortal, error)
	// System is what doctor examines.
	System doctor.System
	// Resolver looks up host names.
	Resolver nodedb.Resolver
	// Terminal returns the width of the terminal that a stream is, 0 if it is none.
	// nil when there are no terminals.
	Terminal func(io.Writer) int
	// Now is the time; nil is time.Now.
	Now func() time.Time
	// Sleep waits for d or until ctx ends.
	Sleep func(ctx context.Context, d time.Duration) error
}

// ISNSConfig says which iSNS server to ask, and as whom.
type ISNSConfig struct {
	InitiatorName string
	Server        initiator.Portal
}

// App is one run of the command.
type App struct{ env Env }

// New returns a command that will run in env.
func New(env Env) *App {
	if env.Terminal == nil {
		env.Terminal = func(io.Writer) int { return 0 }
	}
	if env.Now == nil {
		env.Now = time.Now
	}
	return &App{env: env}
}

// program is the name that stands in every message, whatever the command was
// called as.
const program = "iscsiadm"

// Run runs the command and returns its exit code. When ctx ends, what waits
// is cancelled, and the cause is reported.
func (a *App) Run(ctx context.Context) int {
	c := &command{
		Env:  a.env,
		ctx:  ctx,
		out:  bufio.NewWriter(a.env.Stdout),
		args: a.env.Args,
	}
	err := c.main()
	code := c.report(err)
	if err := c.out.Flush(); err != nil && code == errcode.Success {
		code = errcode.Err
	}
	return int(code)
}

// command is the state of one run.
type command struct {
	Env
	ctx   context.Context
	out   *bufio.Writer // standard output; flushed before anything waits
	args  []string
	items []getopt.Item // the command line, translated
	words []string      // those that are no options, which open-iscsi's modes ignore
	req   request
	ctl   control.Service // nil until daemon makes it
	conf  *nodedb.Config  // nil until config loads it
	told  bool            // of what is wrong with it
	db    *nodedb.DB      // nil until database makes it
}

// main parses the command line and does what it says.
func (c *command) main() error {
	if c.isSubcommand() {
		return c.subcommand()
	}
	if len(c.args) > 0 {
		c.items, c.words = options.Translate(c.args[1:])
	}
	c.req.init()
	// A place where the command line breaks the grammar ends it: what stands
	// before has been obeyed by then, and might have ended the program.
	argv := []string{program}
	var broken *getopt.Error
	for i, it := range c.items {
		if it.Err != nil && it.Err.Letter == '?' {
			// A long option that is none is reported and passed over.
			argv = append(argv, "--"+passedOver+"="+strconv.Itoa(i))
			continue
		}
		if it.Err != nil {
			broken = it.Err
			break
		}
		argv = append(argv, it.Canonical())
	}
	app := &cli.App{
		Name:                      program,
		Flags:                     c.flags(),
		HideHelp:                  true,
		HideVersion:               true,
		DisableSliceFlagSeparator: true,
		Reader:                    c.Stdin,
		Writer:                    c.out,
		ErrWriter:                 c.Stderr,
		// Errors are reported and become exit codes in Run only.
		ExitErrHandler: func(*cli.Context, error) {},
		// The flag package wraps a setter's error in text of its own; the
		// setter keeps the error itself.
		OnUsageError: func(_ *cli.Context, err error, _ bool) error {
			if c.req.err != nil {
				return c.req.err
			}
			return err
		},
		Action: func(*cli.Context) error {
			if broken != nil {
				return c.unrecognized(broken)
			}
			return c.dispatch()
		},
	}
	return app.RunContext(c.ctx, argv)
}

// flags returns the options as flags of the cli package. Each has only its
// long name, because the translator writes no other.
func (c *command) flags() []cli.Flag {
	flags := make([]cli.Flag, len(options))
	for i := range options {
		flags[i] = &cli.GenericFlag{Name: options[i].Long, Usage: options[i].Help, Value: &setter{c: c, opt: &options[i]}}
	}
	return append(flags, &cli.GenericFlag{Name: passedOver, Hidden: true, Value: passer{c}})
}

// passedOver is the flag that stands for the item of its number, a break of the
// grammar. It is no option: only the translation makes it.
const passedOver = "passed-over"

// passer is its value, which prints what is wrong when its turn comes.
type passer struct{ c *command }

// Set implements cli.Generic.
func (p passer) Set(number string) error {
	i, err := strconv.Atoi(number)
	if err == nil {
		p.c.grammar(p.c.items[i].Err)
	}
	return err
}

// String implements cli.Generic.
func (p passer) String() string { return "" }

// setter is the value of one flag: it hands what it is set to to the request.
type setter struct {
	c   *command
	opt *getopt.Option
}

// Set implements cli.Generic.
func (s *setter) Set(value string) error {
	if err := s.c.set(s.opt, value); err != nil {
		s.c.req.err = err
		return err
	}
	return nil
}

// String implements cli.Generic.
func (s *setter) String() string { return "" }

// errDone ends a command that has done all it was asked for.
var errDone = errors.New("done")

// dispatch runs the mode that was asked for.
func (c *command) dispatch() error {
	if c.req.kill != nil {
		return c.killDaemon(*c.req.kill)
	}
	switch c.req.mode {
	case "":
		err := c.usageError("")
		c.hintf("no mode is given: -m and one of %s", modeWords)
		return err
	case "discovery":
		return c.discoveryMode()
	case "discoverydb":
		return c.discoveryDBMode()
	case "node":
		return c.nodeMode()
	case "session":
		return c.sessionMode()
	case "iface":
		return c.ifaceMode()
	case "host":
		return c.hostMode()
	case "fw":
		return c.fwMode()
	case "nodedb":
		return c.nodedbMode()
	}
	// The number is what open-iscsi says for every word that is no mode.
	err := c.fail(errcode.Inval, "mode -1 is not yet supported")
	c.hintf("there is no mode %q, but %s", oneLine(c.req.mode), modeWords)
	return err
}
