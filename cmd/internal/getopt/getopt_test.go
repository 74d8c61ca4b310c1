package getopt_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/goiscsi/goiscsi/cmd/internal/getopt"
)

// table has the options of iscsiadm that matter here.
var table = getopt.Table{
	{Short: 'm', Long: "mode", Arg: "mode"},
	{Short: 'p', Long: "portal", Arg: "portal"},
	{Short: 'T', Long: "targetname", Arg: "name"},
	{Short: 'o', Long: "op", Arg: "operation"},
	{Short: 'n', Long: "name", Arg: "field"},
	{Short: 'v', Long: "value", Arg: "value"},
	{Short: 'P', Long: "print", Arg: "level"},
	{Short: 'D', Long: "discover"},
	{Short: 'l', Long: "login"},
	{Short: 'L', Long: "loginall", Arg: "group"},
	{Short: 'u', Long: "logout"},
	{Short: 'U', Long: "logoutall", Arg: "group"},
	{Short: 'd', Long: "debug", Arg: "level"},
	{Short: 'S', Long: "show"},
	{Short: 'V', Long: "version"},
	{Short: 'A', Long: "portal_type", Arg: "type"},
	{Long: "json"},
}

// render writes items as one word each: canonical arguments, and "!" before
// errors.
func render(items []getopt.Item) []string {
	var out []string
	for _, it := range items {
		if it.Err != nil {
			out = append(out, "!"+string(rune(it.Err.Letter))+" "+it.Err.Message)
			continue
		}
		out = append(out, it.Canonical())
	}
	return out
}

func TestTranslate(t *testing.T) {
	for _, tc := range []struct {
		name string
		args []string
		want []string
	}{
		{"separate short", []string{"-m", "node"}, []string{"--mode=node"}},
		{"attached short", []string{"-mnode"}, []string{"--mode=node"}},
		{"attached address", []string{"-p127.0.0.1"}, []string{"--portal=127.0.0.1"}},
		{"long with blank", []string{"--mode", "node"}, []string{"--mode=node"}},
		{"long with equals", []string{"--op=delete"}, []string{"--op=delete"}},
		{"long with equals and empty value", []string{"--value="}, []string{"--value="}},
		{"empty word as value", []string{"-v", ""}, []string{"--value="}},
		{"value with equals sign", []string{"--value=a=b"}, []string{"--value=a=b"}},
		{"bundle ending in an argument", []string{"-lP0"}, []string{"--login=true", "--print=0"}},
		{"bundle whose argument is the next word", []string{"-lP", "1"}, []string{"--login=true", "--print=1"}},
		{"argument swallows the rest of a bundle", []string{"-Pl"}, []string{"--print=l"}},
		{"argument that looks like an option", []string{"-n", "-v"}, []string{"--name=-v"}},
		{"argument that is two dashes", []string{"-v", "--", "-l"}, []string{"--value=--", "--login=true"}},
		{"unique prefix", []string{"--target", "iqn.x"}, []string{"--targetname=iqn.x"}},
		{"unique prefix with equals", []string{"--target=iqn.x"}, []string{"--targetname=iqn.x"}},
		{"shortest unique prefix", []string{"--d", "1"}, []string{"!? option '--d' is ambiguous; possibilities: '--discover' '--debug'"}},
		{"complete name that is a prefix too", []string{"--login"}, []string{"--login=true"}},
		{"portal is a prefix of portal_type", []string{"--portal", "a"}, []string{"--portal=a"}},
		{"ambiguous prefix", []string{"--log"}, []string{"!? option '--log' is ambiguous; possibilities: '--login' '--loginall' '--logout' '--logoutall'"}},
		{"permutation", []string{"x", "-l", "y", "-m", "node", "z"}, []string{"--login=true", "--mode=node"}},
		{"two dashes end the options", []string{"-l", "--", "-u"}, []string{"--login=true"}},
		{"a single dash is a word", []string{"-", "-l"}, []string{"--login=true"}},
		{"a single dash is a value", []string{"-v", "-"}, []string{"--value=-"}},
		{"unknown letter", []string{"-Z"}, []string{"!Z invalid option -- 'Z'"}},
		{"unknown letter in a bundle", []string{"-lZu"}, []string{"--login=true", "!Z invalid option -- 'Z'", "--logout=true"}},
		{"control character as a letter", []string{"-\x1b"}, []string{"!\x1b invalid option -- '\\x1b'"}},
		{"unknown long", []string{"--bogus=1"}, []string{"!? unrecognized option '--bogus=1'"}},
		{"missing argument of a short", []string{"-m"}, []string{"!m option requires an argument -- 'm'"}},
		{"missing argument in a bundle", []string{"-lP"}, []string{"--login=true", "!P option requires an argument -- 'P'"}},
		{"missing argument of a long", []string{"--mode"}, []string{"!m option '--mode' requires an argument"}},
		{"argument for a switch", []string{"--login=yes"}, []string{"!l option '--login' doesn't allow an argument"}},
		{"empty argument for a switch", []string{"--login="}, []string{"!l option '--login' doesn't allow an argument"}},
		{"letterless", []string{"--json"}, []string{"--json=true"}},
		{"error does not stop the rest", []string{"--bogus", "-V"}, []string{"!? unrecognized option '--bogus'", "--version=true"}},
		{"nothing", nil, nil},
		{"empty words", []string{"", ""}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := render(items(tc.args)); !slices.Equal(got, tc.want) {
				t.Errorf("Translate(%q)\n got %q\nwant %q", tc.args, got, tc.want)
			}
		})
	}
}

func items(args []string) []getopt.Item {
	l, _ := table.Translate(args)
	return l
}

func TestOtherWords(t *testing.T) {
	_, rest := table.Translate([]string{"a", "-l", "-", "-v", "x", "b", "--", "-u", "c"})
	if want := []string{"a", "-", "b", "-u", "c"}; !slices.Equal(rest, want) {
		t.Errorf("rest = %q, want %q", rest, want)
	}
}

// FuzzTranslate checks that the translator takes anything, that it never
// makes up text that was not on the command line, and that a translated
// command line translates into itself.
func FuzzTranslate(f *testing.F) {
	for _, s := range []string{"-m\nnode\n-l", "-lP0\n--op=delete", "--log", "-Z", "--\n-l", "-v\n--\n-n", "--json\n-S"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		args := strings.Split(line, "\n")
		items, _ := table.Translate(args)
		var canonical []string
		for _, it := range items {
			if it.Err != nil {
				continue
			}
			if !strings.Contains(line, it.Value) {
				t.Fatalf("value %q is not in %q", it.Value, args)
			}
			if it.Option.Arg == "" {
				canonical = append(canonical, "--"+it.Option.Long)
			} else {
				canonical = append(canonical, it.Canonical())
			}
		}
		again, _ := table.Translate(canonical)
		if len(again) != len(canonical) {
			t.Fatalf("%q has %d items, translated again %d", canonical, len(canonical), len(again))
		}
		i := 0
		for _, it := range items {
			if it.Err != nil {
				continue
			}
			if again[i].Err != nil || again[i].Option != it.Option || again[i].Value != it.Value {
				t.Fatalf("%q: item %d differs: %+v, %+v", args, i, again[i], it)
			}
			i++
		}
	})
}
