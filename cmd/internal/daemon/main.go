package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/internal/paths"
	"github.com/goiscsi/goiscsi/internal/version"
)

// Main is the iscsid command. It returns the exit status. MarkIOFlusher comes
// before it.
func Main(args []string, stdout, stderr io.Writer, flusher error) int {
	fail := func(err error) int {
		fmt.Fprintf(stderr, "iscsid: %v\n", err)
		if _, ok := err.(*usageError); ok {
			return int(errcode.Inval) // as open-iscsi's ends
		}
		return 1
	}
	status := 0
	app := &cli.App{
		Name: "iscsid", Usage: "hold iSCSI sessions and serve their disks", HideVersion: true, HideHelpCommand: true,
		UseShortOptionHandling: true, Writer: stdout, ErrWriter: stderr,
		ExitErrHandler: func(*cli.Context, error) {},
		OnUsageError:   func(_ *cli.Context, err error, _ bool) error { return &usageError{err} },
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "config", Aliases: []string{"c"}, Usage: "use `FILE` instead of /etc/iscsi/iscsid.conf"},
			&cli.StringFlag{Name: "initiatorname", Aliases: []string{"i"}, Usage: "use `FILE` instead of /etc/iscsi/initiatorname.iscsi"},
			&cli.BoolFlag{Name: "foreground", Aliases: []string{"f"}, Usage: "stay in the foreground and log to standard error"},
			&cli.IntFlag{Name: "debug", Aliases: []string{"d"}, Usage: "log more from `LEVEL` 1 on"},
			&cli.IntFlag{Name: "uid", Aliases: []string{"u"}, Value: -1, Usage: "run as user `UID`"},
			&cli.IntFlag{Name: "gid", Aliases: []string{"g"}, Value: -1, Usage: "run as group `GID`"},
			&cli.BoolFlag{Name: "no-pid-file", Aliases: []string{"n"}, Usage: "write no pid file"},
			&cli.StringFlag{Name: "pid", Aliases: []string{"p"}, Usage: "use `FILE` instead of /run/iscsid.pid"},
			&cli.BoolFlag{Name: "version", Aliases: []string{"v"}, Usage: "print the version"},
		},
		Commands: []*cli.Command{compatSysfsCommand(args, stderr)},
		Action: func(c *cli.Context) error {
			if c.Bool("version") {
				fmt.Fprintf(stdout, "iscsid version %s\n", version.Version)
				return nil
			}
			if c.NArg() > 0 {
				return &usageError{fmt.Errorf("unexpected argument %q", c.Args().First())}
			}
			var err error
			status, err = start(c, args, stderr, flusher)
			return err
		},
	}
	if err := app.Run(args); err != nil {
		return fail(err)
	}
	return status
}

// A usageError is a command line that is wrong.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() + " (iscsid --help shows the options)" }
func (e *usageError) Unwrap() error { return e.err }

// start runs the daemon in this process, or in one of its own.
func start(c *cli.Context, args []string, stderr io.Writer, flusher error) (int, error) {
	ready, child := readyPipe()
	if !c.Bool("foreground") && !child {
		return background(args, stderr)
	}
	o := Options{Paths: paths.FromEnv(), NoPIDFile: c.Bool("no-pid-file"), UID: c.Int("uid"), GID: c.Int("gid")}
	for flag, place := range map[string]*string{"config": &o.Paths.Config, "initiatorname": &o.Paths.InitiatorName, "pid": &o.Paths.PIDFile} {
		if v := c.String(flag); v != "" {
			*place = v
		}
	}
	for _, place := range []*string{&o.Paths.Config, &o.Paths.InitiatorName, &o.Paths.DB, &o.Paths.Run, &o.Paths.PIDFile, &o.Paths.Dev} {
		abs, err := filepath.Abs(*place)
		if err != nil {
			return 1, err
		}
		*place = abs
	}
	level := new(slog.LevelVar)
	if c.Int("debug") > 0 {
		level.Set(slog.LevelDebug)
	}
	o.Level = level
	h := foregroundLog(stderr, level)
	if child {
		if err := os.Chdir("/"); err != nil {
			return 1, err
		}
		h = systemLog(level)
		o.Ready = func() { tellParent(ready, nil) }
	}
	queue := newLogQueue()
	defer queue.close(logEnd)
	o.Logger = slog.New(queue.handler(h))

	// What is private is made so by its own mode; links in /dev are for all.
	syscall.Umask(0o022)
	if flusher != nil {
		o.Logger.Warn("the process is not marked as one that writes dirty memory out; it may wait for its own disks when memory is short", "err", flusher)
	}
	protect(o.Logger)
	o.processors = newProcessorKeeper()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	signal.Ignore(syscall.SIGHUP)
	err := Run(ctx, o)
	if child && err != nil {
		o.Logger.Error("iscsid ends", "err", err)
		tellParent(ready, err)
	}
	return 0, err
}

// readyFD tells the process in the background where its parent listens.
const readyFD = "ISCSID_READY_FD"

// readyPipe returns the pipe to the waiting parent, and whether this process
// is the one in the background.
func readyPipe() (*os.File, bool) {
	if os.Getenv(readyFD) != "3" {
		return nil, false
	}
	os.Unsetenv(readyFD)
	syscall.CloseOnExec(3)
	return os.NewFile(3, "ready"), true
}

// tellParent says that the daemon answers, or why it does not. What is not said
// when the pipe closes is a failure.
func tellParent(pipe *os.File, err error) {
	text := readyText
	if err != nil {
		text = err.Error()
	}
	_, _ = pipe.WriteString(text) // the parent may have been killed
	pipe.Close()
}

const readyText = "ready\n"

// background starts the daemon in a session of its own, with nothing of the
// terminal, and waits until its socket answers.
func background(args []string, stderr io.Writer) (int, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return 1, err
	}
	defer r.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 1, err
	}
	defer null.Close()
	p, err := os.StartProcess(executable(), args, &os.ProcAttr{
		Env:   append(os.Environ(), readyFD+"=3"),
		Files: []*os.File{null, null, null, w},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	w.Close()
	if err != nil {
		return 1, err
	}
	b, err := io.ReadAll(io.LimitReader(r, 4096))
	if err != nil {
		return 1, err
	}
	if string(b) == readyText {
		return 0, p.Release()
	}
	st, err := p.Wait()
	if err != nil {
		return 1, err
	}
	if len(b) > 0 {
		return 1, errors.New(strings.TrimSpace(string(b)))
	}
	return 1, fmt.Errorf("the daemon ended before it was ready: %v", st)
}
