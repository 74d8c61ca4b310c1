package targetcmd

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/internal/version"
)

// DefaultPortal is listened on if there is no -p: iSCSI's port, loopback only.
const DefaultPortal = "127.0.0.1:3260"

// loginTimeout is how long a connection may take to log in.
const loginTimeout = 30 * time.Second

// exitViolations is the exit status with -strict if an initiator broke rules.
const exitViolations = 3

// Main runs the program and returns its exit status. It ends when ctx does.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	err := New(stdout, stderr).RunContext(ctx, args)
	var coder cli.ExitCoder
	switch {
	case err == nil:
		return 0
	case errors.As(err, &coder):
		fmt.Fprintf(stderr, "iscsi-target: %v\n", err)
		return coder.ExitCode()
	}
	fmt.Fprintf(stderr, "iscsi-target: %v\n", err)
	return 1
}

// New returns the program. Run it once: flags are collected in order, which
// urfave/cli leaves to their values.
func New(stdout, stderr io.Writer) *cli.App {
	s := &specs{}
	var p iscsitest.Params
	return &cli.App{
		Name:            "iscsi-target",
		Usage:           "serve files, memory or nothing as iSCSI targets",
		UsageText:       "iscsi-target [-p HOST:PORT]... [-T NAME [unit and target options]]...",
		Version:         version.Version,
		HideHelpCommand: true,
		Writer:          stdout,
		ErrWriter:       stderr,
		ExitErrHandler:  func(*cli.Context, error) {}, // Main prints
		OnUsageError: func(_ *cli.Context, err error, _ bool) error {
			return cli.Exit(err.Error()+" (-help shows the options)", 2)
		},
		DisableSliceFlagSeparator: true,
		Flags:                     flags(s, &p),
		Action: func(cc *cli.Context) error {
			if cc.NArg() > 0 {
				return cli.Exit(fmt.Sprintf("unexpected argument %q (-help shows the options)", cc.Args().First()), 2)
			}
			return run(cc, s, p)
		},
	}
}

// An ordered is a flag that acts when it is read.
type ordered struct {
	set    func(string) error
	isBool bool
}

// Set implements flag.Value.
func (o *ordered) Set(v string) error { return o.set(v) }

// String implements flag.Value: there is no default.
func (*ordered) String() string { return "" }

// IsBoolFlag lets a flag go without a value.
func (o *ordered) IsBoolFlag() bool { return o.isBool }

func stringFlag(name, category, usage string, set func(string) error) cli.Flag {
	return &cli.GenericFlag{Name: name, Category: category, Usage: usage, Value: &ordered{set: set}}
}

// An orderedBool is a BoolFlag, so that the help shows it as one, that acts
// when it is read.
type orderedBool struct {
	*cli.BoolFlag
	value *ordered
}

// Apply implements cli.Flag.
func (b orderedBool) Apply(fs *flag.FlagSet) error {
	fs.Var(b.value, b.Name, b.Usage)
	return nil
}

func boolFlag(name, category, usage string, set func(bool)) cli.Flag {
	return orderedBool{
		&cli.BoolFlag{Name: name, Category: category, Usage: usage, DisableDefaultText: true},
		&ordered{isBool: true, set: func(v string) error {
			b, err := strconv.ParseBool(v)
			if err != nil {
				return fmt.Errorf("%q is neither true nor false", v)
			}
			set(b)
			return nil
		}},
	}
}

func flags(s *specs, p *iscsitest.Params) []cli.Flag {
	const (
		target = "targets (behind -T: of that one)"
		unit   = "units (options apply to the units behind them)"
		proto  = "protocol"
	)
	str := func(f func(t *targetSpec) *string) func(string) error {
		return func(v string) error {
			*f(s.current()) = v
			return nil
		}
	}
	add := func(kind string) func(string) error {
		return func(v string) error {
			s.current().addUnit(kind, v)
			return nil
		}
	}
	number := func(dst *uint32) func(string) error {
		return func(v string) error {
			n, err := parseSize(v)
			if err != nil || n >= 1<<32 {
				return fmt.Errorf("%q is not a number", v)
			}
			*dst = uint32(n)
			return nil
		}
	}
	digests := func(dst *[]string) func(string) error {
		return func(v string) error {
			for _, d := range strings.Split(v, ",") {
				switch strings.ToLower(d) {
				case "none":
					*dst = append(*dst, "None")
				case "crc32c":
					*dst = append(*dst, "CRC32C")
				default:
					return fmt.Errorf("digest %q is neither None nor CRC32C", d)
				}
			}
			return nil
		}
	}
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "p", Usage: "listen on `HOST[:PORT]` (repeatable; default " + DefaultPortal + ")"},
		&cli.IntFlag{Name: "ready-fd", Usage: "write a line to file descriptor `N` when listening, and close it", Value: -1},
		&cli.BoolFlag{Name: "verbose", Usage: "tell of logins and violations on standard error"},
		&cli.BoolFlag{Name: "strict", Usage: "end with status 3 if an initiator broke rules of the protocol"},

		stringFlag("T", target, "begin a target with this `NAME` (repeatable; default "+DefaultTarget+")", s.begin),
		stringFlag("tpgt", target, "target portal group tag `N` (default 1)", func(v string) error {
			n, err := strconv.ParseUint(v, 10, 16)
			if err != nil || n == 0 {
				return errors.New("not a number from 1 to 65535")
			}
			s.current().tpgt = uint16(n)
			return nil
		}),
		boolFlag("controller", target, "add a LUN 0 of type controller", func(b bool) { s.current().controller = b }),
		stringFlag("initiator", target, "only initiators with this `NAME` (repeatable)", func(v string) error {
			t := s.current()
			t.initiators = append(t.initiators[:len(t.initiators):len(t.initiators)], v)
			return nil
		}),
		stringFlag("user", target, "CHAP: initiators log in as `USER`", str(func(t *targetSpec) *string { return &t.user })),
		stringFlag("password-file", target, "CHAP: their secret is the first line of `FILE` (else $"+envPassword+")",
			str(func(t *targetSpec) *string { return &t.passwordFile })),
		stringFlag("mutual-user", target, "CHAP: the target is `USER`", str(func(t *targetSpec) *string { return &t.mutualUser })),
		stringFlag("mutual-password-file", target, "CHAP: its secret is the first line of `FILE` (else $"+envMutualPassword+")",
			str(func(t *targetSpec) *string { return &t.mutualSecret })),

		stringFlag("file", unit, "add a unit on a file or block device `PATH[,SIZE]`; with SIZE it is created or extended", add("file")),
		stringFlag("mem", unit, "add a unit in memory of `SIZE` bytes", add("mem")),
		stringFlag("null", unit, "add a unit of `SIZE` bytes that forgets what is written", add("null")),
		stringFlag("blocksize", unit, "logical block size in bytes, `N` (default 512)", func(v string) error {
			n, err := strconv.Atoi(v)
			if err != nil || n <= 0 {
				return errors.New("not a number of bytes")
			}
			s.current().unit.blockSize = n
			return nil
		}),
		boolFlag("readonly", unit, "refuse writes", func(b bool) { s.current().unit.readOnly = b }),
		boolFlag("thin", unit, "offer UNMAP", func(b bool) { s.current().unit.thin = b }),
		boolFlag("write-cache", unit, "report a volatile write cache", func(b bool) { s.current().unit.writeCache = b }),
		boolFlag("rotational", unit, "report a rotating disk", func(b bool) { s.current().unit.rotating = b }),

		stringFlag("header-digest", proto, "accepted header digests, `LIST` of None and CRC32C (default both)", digests(&p.HeaderDigest)),
		stringFlag("data-digest", proto, "accepted data digests, `LIST` (default both)", digests(&p.DataDigest)),
		boolFlag("initial-r2t", proto, "ask for InitialR2T=Yes", func(b bool) { p.InitialR2T = b }),
		boolFlag("no-immediate-data", proto, "ask for ImmediateData=No", func(b bool) { p.NoImmediateData = b }),
		stringFlag("max-recv", proto, "MaxRecvDataSegmentLength, `BYTES` (default 256K)", number(&p.MaxRecvDataSegmentLength)),
		stringFlag("max-burst", proto, "greatest MaxBurstLength, `BYTES`", number(&p.MaxBurstLength)),
		stringFlag("first-burst", proto, "greatest FirstBurstLength, `BYTES`", number(&p.FirstBurstLength)),
		stringFlag("max-r2t", proto, "greatest MaxOutstandingR2T, `N` (default 16)", number(&p.MaxOutstandingR2T)),
		&cli.UintFlag{Name: "window", Category: proto, Usage: "commands in flight in a session, `N`", Value: 128},
	}
}

// run serves until the context ends.
func run(cc *cli.Context, s *specs, p iscsitest.Params) (err error) {
	targets, files, err := s.build(os.Getenv)
	defer func() { err = errors.Join(err, files.close()) }()
	if err != nil {
		return err
	}
	cfg := iscsitest.Config{Targets: targets, Params: p, CommandWindow: uint32(cc.Uint("window")), LoginTimeout: loginTimeout}
	if cc.Bool("verbose") {
		cfg.Logf = func(format string, args ...any) { fmt.Fprintf(cc.App.ErrWriter, "iscsi-target: "+format+"\n", args...) }
	}
	srv, err := iscsitest.New(cfg)
	if err != nil {
		return trimPrefix(err)
	}
	defer srv.Close()
	portals := cc.StringSlice("p")
	if len(portals) == 0 {
		portals = []string{DefaultPortal}
	}
	var ready strings.Builder
	for _, addr := range portals {
		a, err := srv.Listen(withPort(addr))
		if err != nil {
			return err
		}
		fmt.Fprintf(&ready, "listening on %v\n", a)
	}
	if _, err := io.WriteString(cc.App.Writer, ready.String()); err != nil {
		return err
	}
	if fd := cc.Int("ready-fd"); fd >= 0 {
		f := os.NewFile(uintptr(fd), "ready-fd")
		if f == nil {
			return fmt.Errorf("-ready-fd %d is not open", fd)
		}
		if _, err := f.WriteString(ready.String()); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	<-cc.Context.Done()
	srv.Close()
	if v := srv.Violations(); cc.Bool("strict") && len(v) > 0 {
		return cli.Exit(fmt.Sprintf("%d violations of the protocol, the first: %v", len(v), v[0]), exitViolations)
	}
	return nil
}

// withPort adds iSCSI's port to an address without one.
func withPort(addr string) string {
	if _, _, err := net.SplitHostPort(addr); err == nil {
		return addr
	}
	host := strings.TrimSuffix(strings.TrimPrefix(addr, "["), "]")
	return net.JoinHostPort(host, "3260")
}

// trimPrefix takes the name of the package off an error that goes to a user.
func trimPrefix(err error) error { return errors.New(strings.TrimPrefix(err.Error(), "iscsitest: ")) }
