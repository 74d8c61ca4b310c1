package isns

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/goiscsi/goiscsi/internal/errcode"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// An object is an attribute of an answer by its tag and value.
type object struct {
	tag   uint32
	value []byte
}

func name(tag uint32, s string) object { return object{tag, nameValue(s)} }

func number(tag, n uint32) object { return object{tag, binary.BigEndian.AppendUint32(nil, n)} }

func ip(s string) object {
	a := netip.MustParseAddr(s).As16()
	return object{tagPGAddress, a[:]}
}

// group returns the attributes of a portal group.
func group(target, addr string, port, tag uint32) []object {
	return []object{name(tagPGName, target), ip(addr), number(tagPGPort, port), number(tagPGT, tag)}
}

// answer makes the payload of an answer.
func answer(status uint32, objects ...[]object) []byte {
	b := binary.BigEndian.AppendUint32(nil, status)
	b = appendAttribute(b, tagNodeType, []byte{0, 0, 0, 1})
	b = appendAttribute(b, tagDelimiter, nil)
	for _, o := range slices.Concat(objects...) {
		b = appendAttribute(b, o.tag, o.value)
	}
	return b
}

// pdus splits a payload into PDUs of at most size bytes.
func pdus(payload []byte, size int) []byte {
	var b []byte
	for seq := 0; ; seq++ {
		n := min(size, len(payload))
		h := header{function: devAttrQryRsp, length: n, flags: flagServer, transaction: 1, sequence: uint16(seq)}
		if seq == 0 {
			h.flags |= flagFirst
		}
		if n == len(payload) {
			h.flags |= flagLast
		}
		b = append(appendHeader(b, h), payload[:n]...)
		if payload = payload[n:]; len(payload) == 0 {
			return b
		}
	}
}

// serve answers one query with the bytes given and returns what was asked.
func serve(t *testing.T, reply []byte) (Config, <-chan []byte) {
	t.Helper()
	asked := make(chan []byte, 1)
	done := make(chan struct{})
	t.Cleanup(func() { <-done })
	return Config{
		Server: "isns.invalid:3205", InitiatorName: "iqn.me",
		Dial: func(context.Context, string, string) (net.Conn, error) {
			client, server := net.Pipe()
			go func() { // ends when the query closes its end
				defer close(done)
				defer server.Close()
				h, err := readHeader(server)
				if err != nil {
					asked <- nil
					return
				}
				b := make([]byte, h.length)
				_, _ = io.ReadFull(server, b)
				asked <- b
				_, _ = server.Write(reply)
				_, _ = io.Copy(io.Discard, server)
			}()
			return client, nil
		},
	}, asked
}

func TestQuery(t *testing.T) {
	const a, b = "iqn.2016-01.com.example:a", "iqn.2016-01.com.example:b"
	at := func(target, addr string, tpgt int) Portal {
		return Portal{Target: target, Addr: netip.MustParseAddrPort(addr), TPGT: tpgt}
	}
	node := func(n string, typ uint32) []object { return []object{name(tagName, n), number(tagNodeType, typ)} }
	for _, tc := range []struct {
		name    string
		payload []byte
		want    []Portal
	}{
		{"nothing", answer(0), nil},
		{"no such entry", answer(9), nil},
		{
			"one target, two portals", answer(0, node(a, 1), group(a, "::ffff:192.0.2.1", 3260, 1), group(a, "2001:db8::1", 3261, 2)),
			[]Portal{at(a, "192.0.2.1:3260", 1), at(a, "[2001:db8::1]:3261", 2)},
		},
		{
			"two targets", answer(0, node(a, 1), group(a, "::ffff:192.0.2.1", 3260, 1), node(b, 1), group(b, "::ffff:192.0.2.1", 3260, 1)),
			[]Portal{at(a, "192.0.2.1:3260", 1), at(b, "192.0.2.1:3260", 1)},
		},
		{"address in open-isns's form", answer(0, node(a, 1), group(a, "::192.0.2.1", 3260, 1)), []Portal{at(a, "192.0.2.1:3260", 1)}},
		{"IPv6 loopback is no such form", answer(0, group(a, "::1", 3260, 1)), []Portal{at(a, "[::1]:3260", 1)}},
		{"target and initiator in one", answer(0, node(a, 3), group(a, "::ffff:192.0.2.1", 3260, 1)), []Portal{at(a, "192.0.2.1:3260", 1)}},
		{"initiators are left out", answer(0, node(a, 2), group(a, "::ffff:192.0.2.1", 3260, 1)), nil},
		{"nodes without portal group are left out", answer(0, node(a, 1)), nil},
		{"no tag is no access", answer(0, node(a, 1), []object{name(tagPGName, a), ip("::ffff:192.0.2.1"), number(tagPGPort, 3260), {tagPGT, nil}}), nil},
		{"UDP ports are left out", answer(0, group(a, "::ffff:192.0.2.1", 0x10000|3260, 1)), nil},
		{"empty values are nothing", answer(0, []object{{tagName, nil}, {tagNodeType, nil}, {tagPGName, nil}, {tagPGAddress, nil}, {tagPGPort, nil}}), nil},
		{"unknown attributes are skipped", answer(0, []object{{99, []byte("abcd")}}, group(a, "::ffff:192.0.2.1", 3260, 1)), []Portal{at(a, "192.0.2.1:3260", 1)}},
	} {
		for _, size := range []int{maxPDU, 16} {
			t.Run(tc.name, func(t *testing.T) {
				cfg, asked := serve(t, pdus(tc.payload, size))
				got, err := Query(t.Context(), cfg)
				if err != nil || !slices.Equal(got, tc.want) {
					t.Errorf("Query() = %v, %v, want %v", got, err, tc.want)
				}
				if b := <-asked; !strings.HasPrefix(string(b), "\x00\x00\x00\x20\x00\x00\x00\x08iqn.me\x00\x00\x00\x00\x00\x21\x00\x00\x00\x04\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00") {
					t.Errorf("asked %q", b)
				}
			})
		}
	}
}

func TestQueryRefused(t *testing.T) {
	cfg, _ := serve(t, pdus(answer(8), maxPDU))
	_, err := Query(t.Context(), cfg)
	var se *StatusError
	if !errors.As(err, &se) || se.Status != 8 || errcode.Of(err) != errcode.ISNSQuery {
		t.Errorf("error %v, want status 8 with code 25", err)
	}
}

func TestQueryViolations(t *testing.T) {
	good := answer(0, group("iqn.a", "::ffff:192.0.2.1", 3260, 1))
	change := func(offset int, b byte) []byte {
		p := pdus(good, maxPDU)
		p[offset] = b
		return p
	}
	for _, tc := range []struct {
		name  string
		reply []byte
	}{
		{"version", change(1, 2)},
		{"function", change(3, 3)},
		{"not from a server", change(6, 0)},
		{"authentication", change(6, 0x6c)},
		{"transaction", change(9, 9)},
		{"sequence", change(11, 9)},
		{"no status", pdus(nil, maxPDU)},
		{"no delimiter", pdus(good[:4], maxPDU)},
		{"cut off attribute", pdus(good[:len(good)-1], maxPDU)},
		{"long attribute", pdus(append(good, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff), maxPDU)},
		{"number of the wrong size", pdus(appendAttribute(slices.Clone(good), tagPGT, []byte{1}), maxPDU)},
		{"address of the wrong size", pdus(appendAttribute(slices.Clone(good), tagPGAddress, []byte{1, 2, 3, 4}), maxPDU)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg, _ := serve(t, tc.reply)
			got, err := Query(t.Context(), cfg)
			var pe *ProtocolError
			if !errors.As(err, &pe) || got != nil {
				t.Errorf("Query() = %v, %v, want a *ProtocolError", got, err)
			}
		})
	}
}

func TestQueryCutOff(t *testing.T) {
	p := pdus(answer(0, group("iqn.a", "::ffff:192.0.2.1", 3260, 1)), maxPDU)
	client, server := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = server.Read(make([]byte, 1024))
		_, _ = server.Write(p[:len(p)-3])
		_ = server.Close()
	}()
	_, err := Query(t.Context(), Config{InitiatorName: "iqn.me", Dial: func(context.Context, string, string) (net.Conn, error) { return client, nil }})
	<-done
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("error %v, want io.ErrUnexpectedEOF", err)
	}
}

func TestQueryEndsWithItsContext(t *testing.T) {
	client, server := net.Pipe()
	defer server.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	mine := errors.New("mine")
	go func() {
		_, _ = server.Read(make([]byte, 1024))
		cancel(mine)
	}()
	_, err := Query(ctx, Config{InitiatorName: "iqn.me", Dial: func(context.Context, string, string) (net.Conn, error) { return client, nil }})
	if !errors.Is(err, mine) {
		t.Errorf("error %v, want that of the context", err)
	}
}

func TestQueryTimesOut(t *testing.T) {
	client, server := net.Pipe()
	go func() { _, _ = io.Copy(io.Discard, server) }() // ended by the query's close
	_, err := Query(t.Context(), Config{InitiatorName: "iqn.me", Timeout: time.Millisecond, Dial: func(context.Context, string, string) (net.Conn, error) { return client, nil }})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want context.DeadlineExceeded", err)
	}
}

// FuzzParseAnswer feeds arbitrary answers to the parser: it must not panic,
// and what it returns must be complete.
func FuzzParseAnswer(f *testing.F) {
	f.Add(answer(0, group("iqn.a", "::ffff:192.0.2.1", 3260, 1)))
	f.Add(answer(9))
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 48, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, msg []byte) {
		portals, err := parseAnswer(msg)
		if err != nil {
			return
		}
		for _, p := range portals {
			if p.Target == "" || !p.Addr.IsValid() || p.Addr.Port() == 0 || p.TPGT < 0 || p.TPGT > 65535 {
				t.Errorf("portal %+v", p)
			}
		}
	})
}
