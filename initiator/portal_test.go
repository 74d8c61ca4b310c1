package initiator_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/goiscsi/goiscsi/initiator"
)

func TestParsePortal(t *testing.T) {
	for in, want := range map[string]initiator.Portal{
		"192.0.2.1":               {Host: "192.0.2.1", Port: 3260, TPGT: -1},
		"192.0.2.1:860":           {Host: "192.0.2.1", Port: 860, TPGT: -1},
		"192.0.2.1:3260,1":        {Host: "192.0.2.1", Port: 3260, TPGT: 1},
		"192.0.2.1,65535":         {Host: "192.0.2.1", Port: 3260, TPGT: 65535},
		"[2001:db8::1]":           {Host: "2001:db8::1", Port: 3260, TPGT: -1},
		"[2001:db8::1]:3261,2":    {Host: "2001:db8::1", Port: 3261, TPGT: 2},
		"2001:db8::1":             {Host: "2001:db8::1", Port: 3260, TPGT: -1},
		"fe80::1%eth0":            {Host: "fe80::1%eth0", Port: 3260, TPGT: -1},
		"[fe80::1%eth0.1]:3260,1": {Host: "fe80::1%eth0.1", Port: 3260, TPGT: 1},
		"san-1.example.com":       {Host: "san-1.example.com", Port: 3260, TPGT: -1},
		"san_1:3260":              {Host: "san_1", Port: 3260, TPGT: -1},
	} {
		got, err := initiator.ParsePortal(in)
		if err != nil || got != want {
			t.Errorf("ParsePortal(%q) = %+v, %v, want %+v", in, got, err, want)
		}
	}
}

func TestParsePortalRefuses(t *testing.T) {
	for _, in := range []string{
		"", ":3260", "host:", "host:0", "host:65536", "host:x", "host:3260,", "host:3260,-1", "host:3260,65536",
		"[::1", "[::1]x", "[::1]:", "[192.0.2.1]:3260", "[]:3260", "1:2:3", "a b", "a/b", "../x", "-x", ".x", "a..b",
		"h\x00", "h\x1b[2J", "fe80::1%../../x", "[fe80::1%a/b]:3260", strings.Repeat("a", 254), "host\n:3260",
	} {
		p, err := initiator.ParsePortal(in)
		var pe *initiator.PortalError
		if !errors.As(err, &pe) {
			t.Errorf("ParsePortal(%q) = %+v, %v, want a *PortalError", in, p, err)
		}
	}
}

func TestPortalString(t *testing.T) {
	for want, p := range map[string]initiator.Portal{
		"192.0.2.1:3260,1":    {Host: "192.0.2.1", Port: 3260, TPGT: 1},
		"192.0.2.1:3260":      {Host: "192.0.2.1", TPGT: -1},
		"[2001:db8::1]:860,0": {Host: "2001:db8::1", Port: 860},
	} {
		if got := p.String(); got != want {
			t.Errorf("%+v prints %q, want %q", p, got, want)
		}
	}
}

func FuzzParsePortal(f *testing.F) {
	for _, s := range []string{"a", "a:1", "[::1]:3260,1", "fe80::1%eth0", "1:2:3,4", "[", ",", "[]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := initiator.ParsePortal(s)
		if err != nil {
			return
		}
		again, err := initiator.ParsePortal(p.String())
		if err != nil || again != p {
			t.Fatalf("%q gives %+v, which prints %q and gives %+v, %v", s, p, p.String(), again, err)
		}
	})
}
