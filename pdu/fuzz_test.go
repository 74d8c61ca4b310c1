package pdu_test

import (
	"bytes"
	"io"
	"reflect"
	"testing"

	"github.com/goiscsi/goiscsi/pdu"
)

// FuzzParse feeds headers of every type, and of those that do not exist, to the
// decoders. What they accept must come out the same after encoding and decoding
// again.
func FuzzParse(f *testing.F) {
	for _, tt := range golden {
		wire := unhex(f, tt.wire)
		f.Add(wire[:pdu.BHSLen], wire[pdu.BHSLen:], tt.pdu.Payload())
	}
	f.Fuzz(func(t *testing.T, bhs, ahs, data []byte) {
		if len(bhs) < pdu.BHSLen || len(ahs) > pdu.MaxAHSLen || len(data) > 1<<16 {
			return
		}
		h := &pdu.Header{BHS: [pdu.BHSLen]byte(bhs), AHS: ahs[:len(ahs)&^3]}
		h.BHS[5], h.BHS[6], h.BHS[7] = byte(len(data)>>16), byte(len(data)>>8), byte(len(data))
		if len(data) == 0 {
			data = nil
		}
		first, err := pdu.Parse(h, data)
		if err != nil {
			return
		}
		if first.Opcode() != h.Opcode() {
			t.Fatalf("opcode %v was decoded as %v", h.Opcode(), first.Opcode())
		}
		wire, err := first.AppendHeader(nil)
		if err != nil {
			t.Fatalf("decoded but does not encode: %v", err)
		}
		again := pdu.New(first.Opcode())
		if err := again.Decode(header(wire), first.Payload()); err != nil {
			t.Fatalf("encoded but does not decode: %v\n%x", err, wire)
		}
		if !reflect.DeepEqual(first, again) {
			t.Fatalf("first %+v\nagain %+v", first, again)
		}
		twice, err := again.AppendHeader(nil)
		if err != nil || !bytes.Equal(wire, twice) {
			t.Fatalf("encodings differ\n%x\n%x (%v)", wire, twice, err)
		}
	})
}

func FuzzParseText(f *testing.F) {
	f.Add([]byte("InitiatorName=iqn.2001-04.com.example\x00SessionType=Discovery\x00"), false)
	f.Add([]byte("TargetName=a\x00TargetAddress=[::1]:3260,1\x00TargetName=b\x00"), true)
	f.Add([]byte("\x00\x00K=\x00=\x00"), false)
	f.Fuzz(func(t *testing.T, data []byte, strict bool) {
		lim := pdu.TextLimits{MaxPairs: 8, MaxValueLength: 32, Strict: strict}
		kvs, err := pdu.ParseText(data, lim)
		if err != nil {
			return
		}
		if len(kvs) > lim.MaxPairs {
			t.Fatalf("%d pairs", len(kvs))
		}
		for _, kv := range kvs {
			if kv.Key == "" || len(kv.Key) > pdu.MaxKeyLength || len(kv.Value) > lim.MaxValueLength {
				t.Fatalf("pair out of bounds: %q", kv)
			}
		}
		text := pdu.AppendText(nil, kvs...)
		if strict && !bytes.Equal(text, data) {
			t.Fatalf("%q became %q", data, text)
		}
		again, err := pdu.ParseText(text, lim)
		if err != nil || !reflect.DeepEqual(kvs, again) {
			t.Fatalf("%q became %q (%v)", kvs, again, err)
		}
	})
}

// FuzzValues feeds one string to every parser of a text key's value and of a
// name: whoever accepts it must be able to write it again.
func FuzzValues(f *testing.F) {
	for _, s := range []string{
		"0x0102", "0bAQI=", "258", "0x", "0b", "", "0x123",
		"0", "0x10", "1~2", "a,b", "Yes",
		"iqn.2001-04.com.example:a", "eui.02004567A425678D", "../etc", "a\x00",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		checkBinary(t, s)
		checkValues(t, s)
		checkName(t, s)
	})
}

func checkBinary(t *testing.T, s string) {
	b, err := pdu.ParseBinary(s, 16)
	if err != nil {
		return
	}
	if len(b) == 0 || len(b) > 16 {
		t.Fatalf("%q gives %d bytes", s, len(b))
	}
	for _, s := range []string{pdu.FormatHex(b), pdu.FormatBase64(b)} {
		if again, err := pdu.ParseBinary(s, 16); err != nil || !bytes.Equal(b, again) {
			t.Fatalf("%x became %q and %x (%v)", b, s, again, err)
		}
	}
}

func checkValues(t *testing.T, s string) {
	if n, err := pdu.ParseNumber(s); err == nil {
		if again, err := pdu.ParseNumber(pdu.FormatNumber(n)); again != n || err != nil {
			t.Fatalf("%q is %d, then %d (%v)", s, n, again, err)
		}
	}
	if l, h, err := pdu.ParseRange(s); err == nil && h < l {
		t.Fatalf("%q is %d~%d", s, l, h)
	}
	if list, err := pdu.ParseList(s); err == nil && pdu.FormatList(list...) != s {
		t.Fatalf("%q is %q", s, list)
	}
	if b, err := pdu.ParseBool(s); err == nil && pdu.FormatBool(b) != s {
		t.Fatalf("%q is %v", s, b)
	}
}

func checkName(t *testing.T, s string) {
	if pdu.ValidateName(s) != nil {
		return
	}
	if s == "" || len(s) > pdu.MaxNameLength {
		t.Fatalf("accepted %d bytes", len(s))
	}
	for _, r := range s {
		if r <= ' ' || r == '/' || r == 0x7f {
			t.Fatalf("accepted %q", s)
		}
	}
}

func FuzzReader(f *testing.F) {
	_, wire := stream(f, true, true)
	f.Add(wire[:4096], true, true)
	_, wire = stream(f, false, false)
	f.Add(wire[:4096], false, false)
	f.Fuzz(func(t *testing.T, wire []byte, header, data bool) {
		const limit = 10_000
		// Whichever way the data are read, and whether or not they are
		// there at once, the outcome is the same.
		var outcomes []string
		for _, name := range []string{"Data", "ReadData", "ReadDataPart"} {
			r := pdu.NewReader(bytes.NewReader(wire), 4096)
			r.SetDigests(header, data)
			r.SetMaxDataSegmentLength(limit)
			var outcome bytes.Buffer
			for {
				h, err := r.Next()
				if err != nil {
					outcome.WriteString(err.Error())
					break
				}
				outcome.Write(h.BHS[:])
				outcome.Write(h.AHS)
				if h.DataSegmentLength() > limit {
					t.Fatalf("segment of %d bytes accepted", h.DataSegmentLength())
				}
				b, err := waysToRead[name](r, h)
				if err != nil {
					outcome.WriteString(err.Error())
					if err == io.ErrUnexpectedEOF {
						break
					}
					continue
				}
				outcome.Write(b)
				if _, err := pdu.Parse(h, b); err != nil {
					outcome.WriteString(err.Error())
				}
			}
			outcomes = append(outcomes, outcome.String())
		}
		if outcomes[0] != outcomes[1] || outcomes[0] != outcomes[2] {
			t.Fatalf("outcomes differ: %q", outcomes)
		}
	})
}
