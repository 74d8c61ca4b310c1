package daemon

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/urfave/cli/v2"

	"github.com/goiscsi/goiscsi/cmd/internal/compatsysfs"
	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/internal/paths"
)

// compatSysfsCommand is `iscsid compat-sysfs DIR`: a process of its own that
// talks to the daemon as iscsiadm does.
func compatSysfsCommand(args []string, stderr io.Writer) *cli.Command {
	return &cli.Command{
		Name: "compat-sysfs", Usage: "mount on DIR a /sys that has the kernel's SCSI tree for our sessions", ArgsUsage: "DIR",
		HideHelpCommand: true, UseShortOptionHandling: true,
		OnUsageError: func(_ *cli.Context, err error, _ bool) error { return &usageError{err} },
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "background", Aliases: []string{"b"}, Usage: "return when DIR is mounted and stay in the background"},
			&cli.IntFlag{Name: "debug", Aliases: []string{"d"}, Usage: "log more from `LEVEL` 1 on"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return &usageError{errors.New("compat-sysfs: give it one directory to mount on")}
			}
			return compatSysfs(c, args, stderr)
		},
	}
}

func compatSysfs(c *cli.Context, args []string, stderr io.Writer) error {
	ready, child := readyPipe()
	if c.Bool("background") && !child {
		_, err := background(args, stderr)
		return err
	}
	dir, err := filepath.Abs(c.Args().First())
	if err != nil {
		return err
	}
	places := paths.FromEnv()
	level := slog.LevelInfo
	if c.Int("debug") > 0 {
		level = slog.LevelDebug
	}
	h := newLineHandler(stderr, level)
	tell := func(error) {}
	if child {
		h = systemLog(level)
		tell = func(err error) { tellParent(ready, err) }
		if err := os.Chdir("/"); err != nil {
			return err
		}
	}
	log := slog.New(h)
	// Who looks for the daemon by its name shall not find this process.
	// Without /proc it has to do without.
	_ = os.WriteFile("/proc/self/comm", []byte("compat-sysfs"), 0)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	daemon := control.NewClient(places.ControlSocket(), control.ClientOptions{})
	defer daemon.Close()
	mounted := false
	err = compatsysfs.Run(ctx, compatsysfs.Options{
		Dir: dir, Sys: places.Sys, Daemon: daemon, Logger: log, Ready: func() {
			mounted = true
			if _, err := sd.SdNotify(false, sd.SdNotifyReady); err != nil {
				log.Warn("readiness is not reported to systemd", "err", err)
			}
			tell(nil)
		},
	})
	if err != nil && !mounted {
		tell(err)
	}
	return err
}
