package iscsiadm

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/goiscsi/goiscsi/internal/errcode"
)

// The manual page and the completions are written by hand; these tests hold
// them against the tables that the command goes by.

func readDoc(t *testing.T, parts ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(append([]string{"..", "..", "..", "docs"}, parts...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestManualPageHasEveryOption(t *testing.T) {
	page := readDoc(t, "man", "iscsiadm.8")
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\.It (?:Fl (\w) , )?Fl Fl (\w+)( Ar .*)?$`).FindAllStringSubmatch(page, -1) {
		short, long, arg := m[1], m[2], m[3]
		o, _ := options.Long(long)
		switch {
		case o == nil:
			t.Errorf("the page has --%s, which is no option", long)
			continue
		case short == "" != (o.Short == 0) || short != "" && short[0] != o.Short:
			t.Errorf("the page has -%s for --%s", short, long)
		case (arg == "") != (o.Arg == ""):
			t.Errorf("the page is wrong about --%s taking an argument", long)
		}
		documented[long] = true
	}
	for _, o := range options {
		if !documented[o.Long] {
			t.Errorf("the page does not have --%s", o.Long)
		}
	}
	for mode := range modes {
		if !strings.Contains(page, "\n.Ss "+mode+"\n") {
			t.Errorf("the page has no section on mode %s", mode)
		}
	}
	for op := range opNames {
		if !strings.Contains(page, "Cm "+op) {
			t.Errorf("the page does not have operation %s", op)
		}
	}
}

func TestManualPageHasTheExitCodes(t *testing.T) {
	_, section, _ := strings.Cut(readDoc(t, "man", "iscsiadm.8"), ".Sh EXIT STATUS")
	for _, c := range []errcode.Code{
		errcode.Err, errcode.Trans, errcode.Login, errcode.IDBM, errcode.Inval, errcode.TransTimeout, errcode.PDUTimeout, errcode.Access,
		errcode.SessExists, errcode.InvalidMgmtReq, errcode.ISNSUnavailable, errcode.FatalLogin, errcode.ISCSIDNotConn, errcode.NoObjsFound,
		errcode.SysfsLookup, errcode.LoginAuthFailed, errcode.OpNotSupp, errcode.Busy, errcode.ReqTimedOut,
	} {
		if !strings.Contains(section, fmt.Sprintf("\n.It %d\n", int(c))) {
			t.Errorf("the page does not have code %d (%v)", int(c), c)
		}
	}
}

// digits stand in the completions for options that have no letter.
var digits = map[string]string{"json": "0", "watch": "1", "trace": "2", "duration": "3"}

// withDigits returns the letters of a mode and the digits of the other options
// that it takes.
func withDigits(mode string) string {
	letters := modes[mode]
	for i := range options {
		if o := &options[i]; o.Short == 0 && takes(mode, o) {
			letters += digits[o.Long]
		}
	}
	return letters
}

// TestCompletionsKnowTheModes looks for the letters of every mode, as one
// word, below the mode's name.
func TestCompletionsKnowTheModes(t *testing.T) {
	for file, form := range map[string]string{
		"iscsiadm.bash": "\t%s) echo %s ;;\n",
		"_iscsiadm":     "\t%s) letters=%s ;;\n",
		"iscsiadm.fish": "        case %s\n            set letters %s\n",
	} {
		text := readDoc(t, "completion", file)
		for mode := range modes {
			letters := withDigits(mode)
			if want := fmt.Sprintf(form, mode, letters); !strings.Contains(text, want) {
				t.Errorf("%s: mode %s does not have the options %s", file, mode, letters)
			}
		}
		for mode := range modes {
			if !regexp.MustCompile(`discovery discoverydb [a-z ]*\b`+mode+`\b|\b`+mode+` discoverydb`).MatchString(text) && mode != "discoverydb" {
				t.Errorf("%s: -m does not offer %s", file, mode)
			}
		}
	}
}

func TestCompletionsHaveEveryOption(t *testing.T) {
	bash, zsh, fish := readDoc(t, "completion", "iscsiadm.bash"), readDoc(t, "completion", "_iscsiadm"), readDoc(t, "completion", "iscsiadm.fish")
	for _, o := range options {
		letter := string(rune(o.Short))
		arg := o.Arg != ""
		wantBash := fmt.Sprintf("\t%s) echo --%s ;;\n", letter, o.Long)
		wantZsh := fmt.Sprintf("{-%s,--%s}'[%s]')", letter, o.Long, o.Help)
		wantFish := fmt.Sprintf("complete -c iscsiadm -n '__iscsiadm_takes %s' -s %[1]s -l %s ", letter, o.Long)
		if arg {
			wantZsh = fmt.Sprintf("{-%s+,--%s=}'[%s", letter, o.Long, strings.SplitN(o.Help, "|", 2)[0])
			wantFish += "-x "
		}
		if o.Short == 0 {
			digit := digits[o.Long]
			wantBash = fmt.Sprintf("\t%s) echo --%s ;;\n", digit, o.Long)
			wantZsh = fmt.Sprintf("\t%s) specs+=('--%s[%s]') ;;", digit, o.Long, o.Help)
			wantFish = fmt.Sprintf("complete -c iscsiadm -n '__iscsiadm_takes %s' -l %s ", digit, o.Long)
			if arg {
				wantZsh = fmt.Sprintf("\t%s) specs+=('--%s=[%s]:", digit, o.Long, o.Help)
			}
		}
		for _, c := range []struct{ shell, text, want string }{{"bash", bash, wantBash}, {"zsh", zsh, wantZsh}, {"fish", fish, wantFish}} {
			if !strings.Contains(c.text, c.want) {
				t.Errorf("%s: no %q", c.shell, c.want)
			}
		}
		if i := strings.Index(fish, wantFish); i >= 0 {
			line, _, _ := strings.Cut(fish[i:], "\n")
			if !strings.HasSuffix(line, "-d '"+o.Help+"'") {
				t.Errorf("fish: --%s is not described as %q", o.Long, o.Help)
			}
		}
	}
}
