package iscsiadm

import (
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/goiscsi/goiscsi/cmd/internal/control"
	"github.com/goiscsi/goiscsi/cmd/internal/doctor"
	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/internal/version"
)

// subcommands returns the commands that open-iscsi does not have: they have a
// word of their own instead of a mode. No script that was written for open-iscsi
// begins with such a word: there it is an error.
func (c *command) subcommands() []*cli.Command {
	return []*cli.Command{
		{
			Name:  "doctor",
			Usage: "check whether this machine is fit for iSCSI, and say what to do",
			Flags: []cli.Flag{
				&cli.BoolFlag{Name: "json", Usage: "print JSON"},
				&cli.IntFlag{Name: "timeout", Value: int(doctor.DefaultTimeout / time.Second), Usage: "wait `SECONDS` for each portal"},
			},
			Action: c.doctor,
		},
		{
			Name:      "log",
			Usage:     "show how much iscsid logs, or change it until it ends",
			ArgsUsage: "[error|warn|info|debug]",
			Action:    c.logLevel,
		},
	}
}

// isSubcommand reports whether the command line begins with a subcommand.
func (c *command) isSubcommand() bool {
	if len(c.args) < 2 {
		return false
	}
	for _, s := range c.subcommands() {
		if s.Name == c.args[1] {
			return true
		}
	}
	return false
}

// subcommand runs it.
func (c *command) subcommand() error {
	list := c.subcommands()
	for _, s := range list {
		s.HideHelpCommand = true
		s.OnUsageError = func(_ *cli.Context, err error, _ bool) error {
			return c.fail(errcode.Inval, "%s: %s", c.args[1], oneLine(err.Error()))
		}
	}
	app := &cli.App{
		Name: program, Commands: list, HideVersion: true, HideHelpCommand: true,
		Reader: c.Stdin, Writer: c.out, ErrWriter: c.Stderr,
		ExitErrHandler: func(*cli.Context, error) {},
	}
	return app.RunContext(c.ctx, append([]string{program}, c.args[1:]...))
}

// doctor examines the machine. Problems give code 1; warnings do not.
func (c *command) doctor(cc *cli.Context) error {
	if cc.NArg() > 0 {
		return c.fail(errcode.Inval, "doctor: unexpected argument %s", oneLine(cc.Args().First()))
	}
	if cc.Int("timeout") < 1 {
		return c.fail(errcode.Inval, "doctor: a timeout of at least 1 second is needed")
	}
	asked, ok := c.daemon().(doctor.Daemon)
	if !ok {
		return c.fail(errcode.Internal, "doctor: the daemon cannot be asked for its version")
	}
	found, err := doctor.Examine(c.ctx, doctor.Options{
		Paths: c.Paths, System: c.System, Daemon: asked, Version: version.Version,
		Timeout: time.Duration(cc.Int("timeout")) * time.Second,
	})
	if err != nil {
		return err
	}
	if cc.Bool("json") {
		if err := c.printJSON(found); err != nil {
			return err
		}
	} else {
		c.printFindings(found)
	}
	if found.Count(doctor.Problem) > 0 {
		return exit(errcode.Err)
	}
	return nil
}

// logLevel prints how much the daemon logs, or changes it.
func (c *command) logLevel(cc *cli.Context) error {
	switch cc.NArg() {
	case 0:
		l, err := c.daemon().LogLevel(c.ctx)
		if err != nil {
			return err
		}
		c.printf("%s\n", oneLine(l.Level))
		return nil
	case 1:
		return c.daemon().SetLogLevel(c.ctx, control.LogLevel{Level: cc.Args().First()})
	}
	return c.fail(errcode.Inval, "log: one level at most")
}

// printFindings prints a line for each finding, and below it what to do.
func (c *command) printFindings(found doctor.Findings) {
	wide := 0
	for _, f := range found {
		wide = max(wide, len(f.Check))
	}
	for _, f := range found {
		status := string(f.Status)
		if f.Status == doctor.Warning || f.Status == doctor.Problem {
			status = strings.ToUpper(status)
		}
		c.printf("%-8s %-*s  %s\n", status, wide, f.Check, oneLine(f.Text))
		if f.Advice != "" {
			c.printf("%-8s %-*s  -> %s\n", "", wide, "", oneLine(f.Advice))
		}
	}
	c.printf("\n%s\n", summary(found))
}

func summary(found doctor.Findings) string {
	problems, warnings := found.Count(doctor.Problem), found.Count(doctor.Warning)
	if problems == 0 && warnings == 0 {
		return "No problems."
	}
	return fmt.Sprintf("%d problem%s, %d warning%s.", problems, plural(problems), warnings, plural(warnings))
}
