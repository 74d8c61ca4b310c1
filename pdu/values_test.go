package pdu_test

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/goiscsi/goiscsi/pdu"
)

func TestParseText(t *testing.T) {
	kv := func(s ...string) (kvs []pdu.KeyValue) {
		for i := 0; i < len(s); i += 2 {
			kvs = append(kvs, pdu.KeyValue{Key: s[i], Value: s[i+1]})
		}
		return kvs
	}
	tests := []struct {
		name   string
		text   string
		want   []pdu.KeyValue
		ok     bool
		strict bool // whether the strict parser accepts it too
	}{
		{"empty", "", nil, true, true},
		{"one", "K=v\x00", kv("K", "v"), true, true},
		{"order and repetition", "B=1\x00A=2\x00B=3\x00", kv("B", "1", "A", "2", "B", "3"), true, true},
		{"empty value", "K=\x00", kv("K", ""), true, true},
		{"equals sign in the value", "K=a=b\x00", kv("K", "a=b"), true, true},
		{"extension keys", "X-com.example.x=1\x00X#Y=2\x00", kv("X-com.example.x", "1", "X#Y", "2"), true, true},
		{"no last null", "K=v", kv("K", "v"), true, false},
		{"padding nulls", "K=v\x00\x00\x00", kv("K", "v"), true, false},
		{"small letter", "k=v\x00", kv("k", "v"), true, false},
		{"no equals sign", "K\x00", nil, false, false},
		{"no key", "=v\x00", nil, false, false},
		{"long key", strings.Repeat("K", 64) + "=v\x00", nil, false, false},
		{"control character in key", "K\n=v\x00", nil, false, false},
		{"long value", "K=" + strings.Repeat("v", 8193) + "\x00", nil, false, false},
		{"many pairs", strings.Repeat("K=v\x00", 1025), nil, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := pdu.ParseText([]byte(tt.text), pdu.TextLimits{})
			if (err == nil) != tt.ok {
				t.Fatalf("error %v, want ok %v", err, tt.ok)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			_, err = pdu.ParseText([]byte(tt.text), pdu.TextLimits{Strict: true})
			if (err == nil) != tt.strict {
				t.Errorf("strict: error %v, want ok %v", err, tt.strict)
			}
			if tt.strict {
				if b := pdu.AppendText(nil, got...); string(b) != tt.text {
					t.Errorf("AppendText gives %q", b)
				}
			}
		})
	}
}

func TestParseTextErrorHidesControlCharacters(t *testing.T) {
	_, err := pdu.ParseText([]byte("K\x1b[2J=v\x00"), pdu.TextLimits{})
	if err == nil || strings.Contains(err.Error(), "\x1b") {
		t.Errorf("error %q", err)
	}
}

func TestLookupText(t *testing.T) {
	kvs := []pdu.KeyValue{{Key: "A", Value: "1"}, {Key: "A", Value: "2"}}
	if v, ok := pdu.LookupText(kvs, "A"); v != "1" || !ok {
		t.Errorf("A: %q, %v", v, ok)
	}
	if _, ok := pdu.LookupText(kvs, "B"); ok {
		t.Error("found B")
	}
}

func TestParseNumber(t *testing.T) {
	good := map[string]uint64{
		"0": 0, "1": 1, "262144": 262144, "0x40000": 0x40000, "0Xff": 255, "0x0": 0,
		"18446744073709551615": math.MaxUint64, "0xffffffffffffffff": math.MaxUint64,
	}
	for s, want := range good {
		if got, err := pdu.ParseNumber(s); got != want || err != nil {
			t.Errorf("%q: %d, %v, want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "x", "0x", "-1", "+1", "1_0", "007", " 1", "1 ", "0b11", "1e3", "18446744073709551616", "0xg"} {
		if got, err := pdu.ParseNumber(s); err == nil {
			t.Errorf("%q: accepted as %d", s, got)
		}
	}
}

func TestParseBinary(t *testing.T) {
	good := map[string]string{
		"0x0102ff": "\x01\x02\xff", "0XA": "\x0a", "0x123": "\x01\x23",
		"0bAQL/": "\x01\x02\xff", "0BAQ==": "\x01", "0bAQ": "\x01",
		"0": "\x00", "255": "\xff", "256": "\x01\x00", "18446744073709551615": "\xff\xff\xff\xff\xff\xff\xff\xff",
	}
	for s, want := range good {
		if got, err := pdu.ParseBinary(s, 8); string(got) != want || err != nil {
			t.Errorf("%q: %x, %v, want %x", s, got, err, want)
		}
	}
	for _, s := range []string{"", "0x", "0b", "0xzz", "0b*", "0bA", "0bAQ\n==", "abc", "0x010203040506070809", "0bAQIDBAUGBwgJ", "0b===="} {
		if got, err := pdu.ParseBinary(s, 8); err == nil {
			t.Errorf("%q: accepted as %x", s, got)
		}
	}
	for _, b := range []string{"\x00", "\x01\x02", "\x00\x00\x03"} {
		for _, s := range []string{pdu.FormatHex([]byte(b)), pdu.FormatBase64([]byte(b))} {
			if got, err := pdu.ParseBinary(s, 8); string(got) != b || err != nil {
				t.Errorf("%x as %s: %x, %v", b, s, got, err)
			}
		}
	}
}

func TestParseBoolListRange(t *testing.T) {
	for s, want := range map[string]bool{"Yes": true, "No": false} {
		if got, err := pdu.ParseBool(s); got != want || err != nil || pdu.FormatBool(got) != s {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "yes", "YES", "1"} {
		if _, err := pdu.ParseBool(s); err == nil {
			t.Errorf("boolean %q accepted", s)
		}
	}
	got, err := pdu.ParseList("CRC32C,None")
	if err != nil || pdu.FormatList(got...) != "CRC32C,None" || len(got) != 2 {
		t.Errorf("list: %q, %v", got, err)
	}
	for _, s := range []string{"", ",", "a,", ",a", "a,,b", strings.Repeat("a,", 64) + "a"} {
		if got, err := pdu.ParseList(s); err == nil {
			t.Errorf("list %q accepted as %q", s, got)
		}
	}
	low, high, err := pdu.ParseRange("1~0x10")
	if low != 1 || high != 16 || err != nil || pdu.FormatRange(low, high) != "1~16" {
		t.Errorf("range: %d~%d, %v", low, high, err)
	}
	for _, s := range []string{"", "1", "2~1", "~", "1~", "~1"} {
		if _, _, err := pdu.ParseRange(s); err == nil {
			t.Errorf("range %q accepted", s)
		}
	}
}

func TestValidateName(t *testing.T) {
	for _, s := range []string{
		"iqn.2001-04.com.example:storage:diskarrays-sn-a8675309", "iqn.2016-01-com.example.tg1",
		"eui.02004567A425678D", "naa.62004567BA64678D0123456789ABCDEF", "iqn.2001-04.com.example:größe",
		"x", strings.Repeat("a", 223), "iqn.2003-01.org.linux-iscsi.my_host:sn.1", "iqn.2000-01.com.example:a@b+c",
	} {
		if err := pdu.ValidateName(s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range []string{
		"", strings.Repeat("a", 224), "iqn.a/b", `iqn.a\b`, "iqn.a b", "iqn.a\tb", "iqn.a\x00", "iqn.a\x7f", "..", ".",
		"-oProxyCommand", "iqn.\xff", "iqn.a\u00a0b", "iqn.a\u202eb", "iqn.a,1", "iqn.a;b", "iqn.$(a)", "iqn.a\u200bb",
	} {
		if err := pdu.ValidateName(s); err == nil {
			t.Errorf("%q accepted", s)
		}
	}
	if got := pdu.NormalizeName(" IQN.2001-04.com.Example:Größe\n"); got != "iqn.2001-04.com.example:größe" {
		t.Errorf("NormalizeName: %q", got)
	}
}

func TestLUN(t *testing.T) {
	tests := []struct {
		n    uint64
		wire pdu.LUN
	}{
		{0, 0},
		{1, 0x0001000000000000},
		{255, 0x00ff000000000000},
		{256, 0x4100000000000000},
		{16383, 0x7fff000000000000},
		{16384, 0xd200400000000000},
		{1<<24 - 1, 0xd2ffffff00000000},
		{1 << 24, 0xe200010000000000},
		{1<<40 - 1, 0xe2ffffffffff0000},
	}
	for _, tt := range tests {
		if got := pdu.LUNFromNumber(tt.n); got != tt.wire {
			t.Errorf("LUNFromNumber(%d) = %#016x, want %#016x", tt.n, uint64(got), uint64(tt.wire))
		}
		if n, ok := tt.wire.Number(); n != tt.n || !ok || tt.wire.String() != fmt.Sprint(tt.n) {
			t.Errorf("%#016x is %d, %v, %q", uint64(tt.wire), n, ok, tt.wire.String())
		}
	}
	for _, l := range []pdu.LUN{0x0101000000000000, 0x0001000100000000, 0xc101000000000000, 0x8001000000000000, 0x4100000000000001, 0xd200400000000001} {
		if n, ok := l.Number(); ok {
			t.Errorf("%#016x has the number %d", uint64(l), n)
		}
		if pdu.LUNFromNumber(uint64(l)) != l {
			t.Errorf("LUNFromNumber does not keep %#016x", uint64(l))
		}
		if want := fmt.Sprintf("0x%016x", uint64(l)); l.String() != want {
			t.Errorf("String: %s, want %s", l, want)
		}
	}
}

func TestSerial(t *testing.T) {
	tests := []struct {
		a, b uint32
		cmp  int
	}{
		{0, 0, 0},
		{1, 2, -1},
		{2, 1, 1},
		{math.MaxUint32, 0, -1},
		{0, math.MaxUint32, 1},
		{0, 1<<31 - 1, -1},
		{5, 5 + 1<<31 - 1, -1},
		{1 << 31, 1, 1},
	}
	for _, tt := range tests {
		if got := pdu.SerialCompare(tt.a, tt.b); got != tt.cmp {
			t.Errorf("SerialCompare(%#x, %#x) = %d, want %d", tt.a, tt.b, got, tt.cmp)
		}
		if pdu.SerialLess(tt.a, tt.b) != (tt.cmp < 0) || pdu.SerialLessEqual(tt.a, tt.b) != (tt.cmp <= 0) {
			t.Errorf("SerialLess or SerialLessEqual(%#x, %#x) disagrees", tt.a, tt.b)
		}
	}
	if !pdu.SerialInWindow(math.MaxUint32, math.MaxUint32-1, 1) || !pdu.SerialInWindow(1, math.MaxUint32, 1) ||
		pdu.SerialInWindow(2, math.MaxUint32, 1) || pdu.SerialInWindow(7, 7, 6) {
		t.Error("SerialInWindow is wrong")
	}
	if pdu.SerialInWindow(1<<31+5, 5, 10) {
		t.Error("a number 2^31 away lies in the window")
	}
}

func TestErrorMessages(t *testing.T) {
	tests := map[string]error{
		"iscsi: r2t pdu: LUN: odd":                                       &pdu.FormatError{Opcode: pdu.OpR2T, Field: "LUN", Reason: "odd"},
		"iscsi: opcode 0x07 pdu: Opcode: unassigned":                     &pdu.FormatError{Opcode: 7, Field: "Opcode", Reason: "unassigned"},
		"iscsi: text: odd":                                               &pdu.FormatError{Opcode: pdu.NoOpcode, Field: "text", Reason: "odd"},
		"iscsi: header digest: received 0x00000001, computed 0x00000002": &pdu.DigestError{Header: true, Want: 1, Got: 2},
		"iscsi: data digest: received 0x00000001, computed 0x00000002":   &pdu.DigestError{Want: 1, Got: 2},
	}
	for want, err := range tests {
		if err.Error() != want {
			t.Errorf("%q, want %q", err, want)
		}
	}
	var fe *pdu.FormatError
	if _, err := pdu.ParseNumber(""); !errors.As(err, &fe) {
		t.Errorf("ParseNumber returns %T", err)
	}
}
