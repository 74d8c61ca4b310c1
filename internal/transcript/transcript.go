// Package transcript compares what our iscsiadm does with a transcript of
// open-iscsi's, command by command. What may differ stands in two lists, each
// entry with its reason, and nowhere else: Normalizations for lines of all
// commands, Deviations for single commands. Tests that run the commands in
// process and tests that run them on a real kernel go by the same lists.
package transcript

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// A Command is a command line and what it did.
type Command struct {
	// Line is the command as it was typed to a shell.
	Line string
	// Out and Err are the lines of the two streams.
	Out, Err []string
	// Code is the exit code.
	Code int
}

// Lines splits the text of a stream.
func Lines(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

// Read reads a transcript:
//
//	$ command
//	out| a line of standard output
//	err| a line of standard error
//	rc=0
func Read(r io.Reader) ([]Command, error) {
	var list []Command
	sc := bufio.NewScanner(r)
	for n := 1; sc.Scan(); n++ {
		line := sc.Text()
		if cmd, ok := strings.CutPrefix(line, "$ "); ok {
			list = append(list, Command{Line: cmd})
			continue
		}
		if line == "" {
			continue
		}
		if len(list) == 0 {
			return nil, fmt.Errorf("line %d: %q before the first command", n, line)
		}
		last := &list[len(list)-1]
		switch kind, text := line[:min(4, len(line))], strings.TrimPrefix(line[min(4, len(line)):], " "); kind {
		case "out|":
			last.Out = append(last.Out, text)
		case "err|":
			last.Err = append(last.Err, text)
		default:
			code, ok := strings.CutPrefix(line, "rc=")
			v, err := strconv.Atoi(code)
			if !ok || err != nil {
				return nil, fmt.Errorf("line %d: %q is not understood", n, line)
			}
			last.Code = v
		}
	}
	return list, sc.Err()
}

// Clone returns a copy that shares nothing.
func (c Command) Clone() Command {
	c.Out, c.Err = slices.Clone(c.Out), slices.Clone(c.Err)
	return c
}

// Equal reports whether both commands did the same.
func (c Command) Equal(o Command) bool {
	return c.Line == o.Line && c.Code == o.Code && slices.Equal(c.Out, o.Out) && slices.Equal(c.Err, o.Err)
}

// String returns the command as it stands in a transcript.
func (c Command) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "$ %s\n", c.Line)
	for _, l := range c.Out {
		fmt.Fprintf(&b, "out| %s\n", l)
	}
	for _, l := range c.Err {
		fmt.Fprintf(&b, "err| %s\n", l)
	}
	fmt.Fprintf(&b, "rc=%d\n", c.Code)
	return b.String()
}

// A Result tells how our command compares with open-iscsi's.
type Result struct {
	// Want and Got are both sides, normalized and with the deviation applied.
	Want, Got Command
	// Same is whether they are equal.
	Same bool
	// Deviation is the entry for the command, nil if there is none.
	Deviation *Deviation
	// Stale is set when there is a deviation, but the command does not differ
	// without it: the list is no longer true.
	Stale bool
}

// Compare compares a command of a transcript with ours.
func Compare(want, got Command) Result {
	want, got = normalize(want, Normalization.golden), normalize(got, Normalization.ours)
	r := Result{Want: want, Got: got}
	if d := deviation(want.Line); d != nil {
		r.Deviation, r.Stale = d, want.Equal(got)
		r.Want, r.Got = want.Clone(), got.Clone()
		d.change(&r.Want, &r.Got)
	}
	r.Same = r.Want.Equal(r.Got)
	return r
}

// deviation returns the entry for a command, nil if there is none.
func deviation(line string) *Deviation {
	for i := range Deviations {
		if Deviations[i].Command == line {
			return &Deviations[i]
		}
	}
	return nil
}

// normalize applies one side of all normalizations.
func normalize(c Command, side func(Normalization) func(string) string) Command {
	c = c.Clone()
	for _, n := range Normalizations {
		f := side(n)
		if f == nil {
			continue
		}
		for _, lines := range []*[]string{&c.Out, &c.Err} {
			var out []string
			for _, s := range *lines {
				if s = f(s); s != drop {
					out = append(out, s)
				}
			}
			*lines = out
		}
	}
	return c
}
