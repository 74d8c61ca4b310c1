//go:build linux

package nbd_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/goiscsi/goiscsi/nbd"
)

func TestRequestLayout(t *testing.T) {
	h := nbd.RequestHeader{Flags: nbd.CmdFlagFUA, Cmd: nbd.CmdWrite, Cookie: 0x0102030405060708, Offset: 0x1112131415161718, Length: 0x21222324}
	want := []byte{
		0x25, 0x60, 0x95, 0x13, 0, 1, 0, 1,
		1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x21, 0x22, 0x23, 0x24,
	}
	b := h.Append(nil)
	if !bytes.Equal(b, want) {
		t.Fatalf("encoded as %x, want %x", b, want)
	}
	got, err := nbd.ParseRequest(b)
	if err != nil || got != h {
		t.Fatalf("decoded as %+v, %v", got, err)
	}
}

func TestSimpleReplyLayout(t *testing.T) {
	r := nbd.SimpleReply{Error: 5, Cookie: 0x0102030405060708}
	want := []byte{0x67, 0x44, 0x66, 0x98, 0, 0, 0, 5, 1, 2, 3, 4, 5, 6, 7, 8}
	b := r.Append(nil)
	if !bytes.Equal(b, want) {
		t.Fatalf("encoded as %x, want %x", b, want)
	}
	got, err := nbd.ParseSimpleReply(b)
	if err != nil || got != r {
		t.Fatalf("decoded as %+v, %v", got, err)
	}
}

func TestShortAndForeignMessagesAreFormatErrors(t *testing.T) {
	decoders := map[string]struct {
		size   int
		decode func([]byte) error
	}{
		"request":      {nbd.RequestSize, func(b []byte) error { _, err := nbd.ParseRequest(b); return err }},
		"reply":        {nbd.ReplySize, func(b []byte) error { _, err := nbd.ParseSimpleReply(b); return err }},
		"option":       {nbd.OptionHeaderSize, func(b []byte) error { _, err := nbd.ParseOptionHeader(b); return err }},
		"option reply": {nbd.OptionReplyHeaderSize, func(b []byte) error { _, err := nbd.ParseOptionReplyHeader(b); return err }},
	}
	for name, d := range decoders {
		for _, b := range [][]byte{nil, make([]byte, d.size-1), make([]byte, d.size)} {
			var fe *nbd.FormatError
			if err := d.decode(b); !errors.As(err, &fe) {
				t.Errorf("%s of %d zero bytes: %v, want a FormatError", name, len(b), err)
			}
		}
	}
}

func TestOptionReplyLengthIsBounded(t *testing.T) {
	b := nbd.AppendOptionReply(nil, nbd.OptList, nbd.RepServer, nil)
	binary.BigEndian.PutUint32(b[16:], 1<<20)
	if _, err := nbd.ParseOptionReplyHeader(b); err == nil {
		t.Error("a reply of 1 MiB is accepted")
	}
}
