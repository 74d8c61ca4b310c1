//go:build linux

package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	// maxOptionData is the longest option that is read: two names would fit.
	maxOptionData = 8<<10 + 64
	// maxOptionSkip is the longest that is skipped with RepErrTooBig; clients
	// that send more are dropped.
	maxOptionSkip = 1 << 20
	// maxOptions is how many options a client may send before it has to choose.
	maxOptions = 256
)

// errAborted ends a handshake that the client left by NBD_OPT_ABORT, or by
// closing after it had asked what it wanted.
var errAborted = errors.New("nbd: client ended the handshake")

// A negotiation is one run of the fixed newstyle handshake on the server's side:
//
//	greeting → client flags → option* → (EXPORT_NAME | GO) → transmission
//	                              └──→ ABORT → end
type negotiation struct {
	rw       io.ReadWriter
	lookup   func(name string) *served // nil when there is no such export
	list     func() []*Export
	noZeroes bool
	fixed    bool
	buf      []byte // a reply being built
}

// run returns the export that the client chose. Options that are wrong or not
// known are answered, so that the client may try another.
func (n *negotiation) run() (*served, error) {
	var b [GreetingSize]byte
	binary.BigEndian.PutUint64(b[0:], HandshakeMagic)
	binary.BigEndian.PutUint64(b[8:], OptionMagic)
	binary.BigEndian.PutUint16(b[16:], HandshakeFixedNewstyle|HandshakeNoZeroes)
	if _, err := n.rw.Write(b[:]); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(n.rw, b[:4]); err != nil {
		return nil, err
	}
	flags := binary.BigEndian.Uint32(b[:])
	if flags&^(HandshakeFixedNewstyle|HandshakeNoZeroes) != 0 {
		return nil, &FormatError{Message: "client flags", Field: "flags", Got: uint64(flags)}
	}
	n.fixed = flags&HandshakeFixedNewstyle != 0
	n.noZeroes = flags&HandshakeNoZeroes != 0
	for range maxOptions {
		if s, err := n.option(); s != nil || err != nil {
			return s, err
		}
	}
	return nil, fmt.Errorf("nbd: client sent %d options without choosing an export", maxOptions)
}

// option reads and answers one option. It returns the export if the option
// chose one.
func (n *negotiation) option() (*served, error) {
	var hb [OptionHeaderSize]byte
	if _, err := io.ReadFull(n.rw, hb[:]); err != nil {
		if err == io.EOF {
			// Clients that only looked often just close.
			err = errAborted
		}
		return nil, err
	}
	h, err := ParseOptionHeader(hb[:])
	if err != nil {
		return nil, err
	}
	if h.Length > maxOptionData {
		if h.Length > maxOptionSkip || !n.fixed {
			return nil, &FormatError{Message: "option", Field: "length", Got: uint64(h.Length)}
		}
		if _, err := io.CopyN(io.Discard, n.rw, int64(h.Length)); err != nil {
			return nil, unexpected(err)
		}
		return nil, n.reply(h.Option, RepErrTooBig, "option is too long")
	}
	data := make([]byte, h.Length)
	if _, err := io.ReadFull(n.rw, data); err != nil {
		return nil, unexpected(err)
	}
	if h.Option == OptExportName {
		return n.exportName(string(data))
	}
	if !n.fixed {
		// Without the flag the client understands no replies to options.
		return nil, &FormatError{Message: "option without fixed newstyle", Field: "option", Got: uint64(h.Option)}
	}
	switch h.Option {
	case OptAbort:
		_ = n.reply(h.Option, RepAck, "") // the client may be gone by now
		return nil, errAborted
	case OptList:
		return nil, n.listExports(data)
	case OptInfo, OptGo:
		return n.info(h.Option, data)
	case OptStructuredReply, OptExtendedHeaders:
		return nil, n.reply(h.Option, RepErrUnsup, "only simple replies are spoken here")
	case OptStartTLS:
		return nil, n.reply(h.Option, RepErrUnsup, "no TLS here")
	}
	return nil, n.reply(h.Option, RepErrUnsup, "option is not known")
}

// exportName answers NBD_OPT_EXPORT_NAME, which knows no error reply: the only
// way to refuse is to hang up.
func (n *negotiation) exportName(name string) (*served, error) {
	s := n.lookup(name)
	if s == nil {
		return nil, fmt.Errorf("nbd: client asked for unknown export %q", clip(name))
	}
	b := binary.BigEndian.AppendUint64(n.buf[:0], s.export.size())
	b = binary.BigEndian.AppendUint16(b, uint16(s.export.Flags()))
	if !n.noZeroes {
		b = append(b, make([]byte, 124)...)
	}
	_, err := n.rw.Write(b)
	return s, err
}

func (n *negotiation) listExports(data []byte) error {
	if len(data) > 0 {
		return n.reply(OptList, RepErrInvalid, "list takes no data")
	}
	b := n.buf[:0]
	for _, e := range n.list() {
		p := binary.BigEndian.AppendUint32(nil, uint32(len(e.Name)))
		p = append(p, e.Name...)
		p = append(p, e.Description...)
		b = AppendOptionReply(b, OptList, RepServer, p)
	}
	b = AppendOptionReply(b, OptList, RepAck, nil)
	_, err := n.rw.Write(b)
	return err
}

// info answers NBD_OPT_INFO and NBD_OPT_GO. The export's size, flags and block
// sizes are always told, the texts when asked for.
func (n *negotiation) info(o Option, data []byte) (*served, error) {
	r, err := ParseInfoRequest(data)
	if err != nil {
		return nil, n.reply(o, RepErrInvalid, "malformed request")
	}
	s := n.lookup(r.Name)
	if s == nil {
		return nil, n.reply(o, RepErrUnknown, fmt.Sprintf("no export %q", clip(r.Name)))
	}
	e := s.export
	smallest, preferred, largest := e.blockSizes()
	infos := []Info{
		{Type: InfoExport, Size: e.size(), Flags: e.Flags()},
		{Type: InfoBlockSize, Minimum: smallest, Preferred: preferred, Maximum: largest},
	}
	told := map[InfoType]bool{InfoExport: true, InfoBlockSize: true}
	for _, t := range r.Infos {
		if told[t] {
			continue
		}
		told[t] = true
		switch t {
		case InfoName:
			infos = append(infos, Info{Type: t, Text: e.Name})
		case InfoDescription:
			if e.Description != "" {
				infos = append(infos, Info{Type: t, Text: e.Description})
			}
		}
	}
	b := n.buf[:0]
	for _, i := range infos {
		b = AppendOptionReply(b, o, RepInfo, i.Append(nil))
	}
	b = AppendOptionReply(b, o, RepAck, nil)
	if _, err := n.rw.Write(b); err != nil || o != OptGo {
		return nil, err
	}
	return s, nil
}

func (n *negotiation) reply(o Option, t OptionReplyType, text string) error {
	n.buf = AppendOptionReply(n.buf[:0], o, t, []byte(text))
	_, err := n.rw.Write(n.buf)
	return err
}

// clip shortens a peer's text for messages.
func clip(s string) string {
	const n = 128
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}
