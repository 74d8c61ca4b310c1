// Package getopt reads command lines by the rules of the C library's
// getopt_long, for commands that have to be compatible with ones in C.
package getopt

import (
	"fmt"
	"strings"
)

// An Option describes one option of a command.
type Option struct {
	Short byte   // 0 where there is only a long form
	Long  string // without dashes
	Arg   string // name of the argument in texts, empty for a switch
	Help  string // one line
}

// Letter is the letter that stands for the option in messages: a question
// mark where there is none.
func (o *Option) Letter() byte {
	if o.Short == 0 {
		return '?'
	}
	return o.Short
}

// A Table holds the options of a command, in the order in which the
// candidates for an ambiguous prefix are named.
type Table []Option

// Short returns the option with the letter c, nil if there is none.
func (t Table) Short(c byte) *Option {
	if c == 0 {
		return nil
	}
	for i := range t {
		if t[i].Short == c {
			return &t[i]
		}
	}
	return nil
}

// Long returns the option whose long name is name or, if there is none, those
// of which name is a prefix.
func (t Table) Long(name string) (exact *Option, candidates []*Option) {
	for i := range t {
		switch o := &t[i]; {
		case o.Long == name:
			return o, nil
		case strings.HasPrefix(o.Long, name):
			candidates = append(candidates, o)
		}
	}
	return nil, candidates
}

// An Item is one option of the command line with its argument, or, where Err
// is set, a place where the command line breaks the grammar.
type Item struct {
	Option *Option
	Value  string
	Err    *Error
}

// Canonical returns the item as one word: "--long=value", with the value
// "true" for a switch.
func (it Item) Canonical() string {
	if it.Option.Arg == "" {
		return "--" + it.Option.Long + "=true"
	}
	return "--" + it.Option.Long + "=" + it.Value
}

// An Error is a violation of the grammar.
type Error struct {
	// Message is what the C library prints, without the program's name.
	Message string
	// Letter is the option's letter, '?' for a long option that is none.
	Letter byte
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Translate reads args, the command line without the program's name:
//
//   - options and other words come in any order, up to a word "--";
//   - "-abc" is -a -b -c if a and b take no argument, an argument may follow
//     its letter directly ("-mnode") or be the next word, whatever it looks
//     like;
//   - "--name=value" and "--name value", where name may be cut short as long
//     as it is unambiguous; a complete name is never ambiguous.
//
// Words that are no options come back as rest. Errors come at their place
// among the items, because what stands before one may end the program first.
func (t Table) Translate(args []string) (items []Item, rest []string) {
	fail := func(letter byte, format string, a ...any) {
		items = append(items, Item{Err: &Error{fmt.Sprintf(format, a...), letter}})
	}
	for len(args) > 0 {
		word := args[0]
		args = args[1:]
		switch {
		case word == "--":
			return items, append(rest, args...)
		case strings.HasPrefix(word, "--"):
			name, value, attached := strings.Cut(word[2:], "=")
			o, candidates := t.Long(name)
			if o == nil && len(candidates) == 1 {
				o = candidates[0]
			}
			switch {
			case o == nil && len(candidates) > 1:
				fail('?', "option '%s' is ambiguous; possibilities:%s", Printable(word), possibilities(candidates))
			case o == nil:
				fail('?', "unrecognized option '%s'", Printable(word))
			case o.Arg == "" && attached:
				fail(o.Letter(), "option '--%s' doesn't allow an argument", o.Long)
			case o.Arg == "" || attached:
				items = append(items, Item{Option: o, Value: value})
			case len(args) == 0:
				fail(o.Letter(), "option '--%s' requires an argument", o.Long)
			default:
				items = append(items, Item{Option: o, Value: args[0]})
				args = args[1:]
			}
		case len(word) > 1 && word[0] == '-':
			for i := 1; i < len(word); i++ {
				c := word[i]
				o := t.Short(c)
				if o == nil {
					fail(c, "invalid option -- '%s'", Printable(word[i:i+1]))
					continue
				}
				if o.Arg == "" {
					items = append(items, Item{Option: o})
					continue
				}
				switch after := word[i+1:]; {
				case after != "":
					items = append(items, Item{Option: o, Value: after})
				case len(args) == 0:
					fail(c, "option requires an argument -- '%c'", c)
				default:
					items = append(items, Item{Option: o, Value: args[0]})
					args = args[1:]
				}
				break
			}
		default:
			rest = append(rest, word)
		}
	}
	return items, rest
}

func possibilities(os []*Option) string {
	var b strings.Builder
	for _, o := range os {
		fmt.Fprintf(&b, " '--%s'", o.Long)
	}
	return b.String()
}

// Printable returns s with an escape for every byte that could disturb a
// terminal or forge a line.
func Printable(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == 0x7f {
			fmt.Fprintf(&b, "\\x%02x", c)
		} else {
			b.WriteByte(c)
		}
	}
	return strings.ToValidUTF8(b.String(), "?")
}
