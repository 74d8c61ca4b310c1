package iscsiadm

import (
	"fmt"
	"strings"
)

// An item is one option of the command line with its argument, or, where err
// is set, a place where the command line breaks the grammar.
type item struct {
	opt   *option
	value string
	err   *grammarError
}

// arg returns the item in the only form that the flag parser behind the
// translator ever sees.
func (it item) arg() string {
	if it.opt.arg == "" {
		return "--" + it.opt.long + "=true"
	}
	return "--" + it.opt.long + "=" + it.value
}

// A grammarError is a violation of getopt's grammar, with the text that the C
// library prints for it.
type grammarError struct {
	msg    string
	letter byte // the option's letter, '?' for a long option that is none
}

func (e *grammarError) Error() string { return e.msg }

// translate reads args, the command line without the program's name, by the
// rules of the C library's getopt_long:
//
//   - options and other words come in any order, up to a word "--";
//   - "-abc" is -a -b -c if a and b take no argument, an argument may follow
//     its letter directly ("-mnode") or be the next word, whatever it looks
//     like;
//   - "--name=value" and "--name value", where name may be cut short as long
//     as it is unambiguous; a complete name is never ambiguous.
//
// Words that are no options are ignored, as open-iscsi does. Errors come at
// their place among the items, because what stands before one may end the
// program first.
func translate(args []string) []item {
	var items []item
	fail := func(letter byte, format string, a ...any) {
		items = append(items, item{err: &grammarError{fmt.Sprintf(format, a...), letter}})
	}
	for len(args) > 0 {
		word := args[0]
		args = args[1:]
		switch {
		case word == "--":
			return items
		case strings.HasPrefix(word, "--"):
			name, value, attached := strings.Cut(word[2:], "=")
			o, candidates := byLong(name)
			if o == nil && len(candidates) == 1 {
				o = candidates[0]
			}
			switch {
			case o == nil && len(candidates) > 1:
				fail('?', "option '%s' is ambiguous; possibilities:%s", word, possibilities(candidates))
			case o == nil:
				fail('?', "unrecognized option '%s'", word)
			case o.arg == "" && attached:
				fail(o.letter(), "option '--%s' doesn't allow an argument", o.long)
			case o.arg == "" || attached:
				items = append(items, item{opt: o, value: value})
			case len(args) == 0:
				fail(o.letter(), "option '--%s' requires an argument", o.long)
			default:
				items = append(items, item{opt: o, value: args[0]})
				args = args[1:]
			}
		case len(word) > 1 && word[0] == '-':
			for i := 1; i < len(word); i++ {
				c := word[i]
				o := byShort(c)
				if o == nil {
					fail(c, "invalid option -- '%s'", printable(c))
					continue
				}
				if o.arg == "" {
					items = append(items, item{opt: o})
					continue
				}
				switch rest := word[i+1:]; {
				case rest != "":
					items = append(items, item{opt: o, value: rest})
				case len(args) == 0:
					fail(c, "option requires an argument -- '%c'", c)
				default:
					items = append(items, item{opt: o, value: args[0]})
					args = args[1:]
				}
				break
			}
		}
	}
	return items
}

// letter is the letter that stands for the option in messages.
func (o *option) letter() byte {
	if o.short == 0 {
		return '?'
	}
	return o.short
}

func possibilities(os []*option) string {
	var b strings.Builder
	for _, o := range os {
		fmt.Fprintf(&b, " '--%s'", o.long)
	}
	return b.String()
}

// printable returns c, or an escape where c would disturb a terminal.
func printable(c byte) string {
	if c < ' ' || c >= 0x7f {
		return fmt.Sprintf("\\x%02x", c)
	}
	return string(rune(c))
}
