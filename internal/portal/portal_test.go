package portal_test

import (
	"errors"
	"testing"

	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/internal/portal"
)

func TestParse(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want portal.Portal
		text string
	}{
		{"10.0.0.1", portal.Portal{Host: "10.0.0.1", TPGT: -1}, "10.0.0.1"},
		{"10.0.0.1:3261", portal.Portal{Host: "10.0.0.1", Port: 3261, TPGT: -1}, "10.0.0.1:3261"},
		{"10.0.0.1:3260,7", portal.Portal{Host: "10.0.0.1", Port: 3260, TPGT: 7}, "10.0.0.1:3260,7"},
		{"10.0.0.1,7", portal.Portal{Host: "10.0.0.1", TPGT: 7}, "10.0.0.1,7"},
		{"san.example.com:3260", portal.Portal{Host: "san.example.com", Port: 3260, TPGT: -1}, "san.example.com:3260"},
		{"localhost", portal.Portal{Host: "localhost", TPGT: -1}, "localhost"},
		{"[localhost]:3260,1", portal.Portal{Host: "localhost", Port: 3260, TPGT: 1}, "localhost:3260,1"},
		{"[::1]", portal.Portal{Host: "::1", TPGT: -1}, "[::1]"},
		{"[::1]:3260,1", portal.Portal{Host: "::1", Port: 3260, TPGT: 1}, "[::1]:3260,1"},
		{"::1", portal.Portal{Host: "::1", TPGT: -1}, "[::1]"},
		{"fe80::1%eth0.100,3", portal.Portal{Host: "fe80::1%eth0.100", TPGT: 3}, "[fe80::1%eth0.100],3"},
		{"::ffff:10.0.0.1", portal.Portal{Host: "::ffff:10.0.0.1", TPGT: -1}, "[::ffff:10.0.0.1]"},
	} {
		t.Run(tc.in, func(t *testing.T) {
			got, err := portal.Parse(tc.in)
			if err != nil || got != tc.want {
				t.Fatalf("Parse = %+v, %v; want %+v", got, err, tc.want)
			}
			if got.String() != tc.text {
				t.Errorf("String() = %q, want %q", got.String(), tc.text)
			}
		})
	}
}

func TestParseRejects(t *testing.T) {
	for _, in := range []string{
		"", ":3260", "[]", "[::1", "[::1]x", "[::1]3260", "a:b:c", "10.0.0.1:", "10.0.0.1:abc", "10.0.0.1:0",
		"10.0.0.1:99999", "10.0.0.1:-1", "10.0.0.1,", "10.0.0.1,x", "10.0.0.1,65536", "10.0.0.1,1,2",
		"a b", "a\nb", "../x", "..", "fe80::1%eth0/../x", "h\xffst",
	} {
		t.Run(in, func(t *testing.T) {
			_, err := portal.Parse(in)
			var pe *portal.ParseError
			if !errors.As(err, &pe) || errcode.Of(err) != errcode.Inval {
				t.Errorf("Parse(%q) = %v, want a *ParseError with code 7", in, err)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"10.0.0.1:3260,1", "[fe80::1%eth0]:3260", "::1,1", "a:b:c", "[x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := portal.Parse(s)
		if err != nil {
			return
		}
		again, err := portal.Parse(p.String())
		if err != nil || again != p {
			t.Errorf("Parse(%q) = %+v, but Parse(%q) = %+v, %v", s, p, p.String(), again, err)
		}
	})
}

func TestSame(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want bool
	}{
		{"10.0.0.1", "10.0.0.1", true},
		{"10.0.0.1", "10.0.0.10", false},
		{"::1", "0:0:0:0:0:0:0:1", true},
		{"::ffff:10.0.0.1", "10.0.0.1", true},
		{"fe80::1%eth0", "FE80::1%eth0", true},
		{"fe80::1%eth0", "fe80::1%eth1", false},
		{"fe80::1%eth0", "fe80::1", false},
		{"San.example.com", "san.example.com", true},
		{"localhost", "127.0.0.1", false},
	} {
		if got := portal.Same(tc.a, tc.b); got != tc.want {
			t.Errorf("Same(%q, %q) = %v", tc.a, tc.b, got)
		}
	}
}

func TestListHost(t *testing.T) {
	for in, want := range map[string]string{"10.0.0.1": "10.0.0.1", "::1": "[::1]", "localhost": "[localhost]", "a.b": "a.b"} {
		if got := portal.ListHost(in); got != want {
			t.Errorf("ListHost(%q) = %q, want %q", in, got, want)
		}
	}
}
