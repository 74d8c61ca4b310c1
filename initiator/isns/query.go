package isns

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

// DefaultPort is the TCP port of iSNS registered with IANA.
const DefaultPort = 3205

// DefaultTimeout bounds a query unless Config says otherwise.
const DefaultTimeout = 30 * time.Second

// A Config says which server to ask, and as whom.
type Config struct {
	// Server is the server's "host:port". Required.
	Server string
	// InitiatorName is who asks: servers show a node only what is in its
	// discovery domains. Required.
	InitiatorName string
	// Timeout bounds the whole query, the connection included. Zero means
	// DefaultTimeout.
	Timeout time.Duration
	// Dial replaces the making of the connection where not nil.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// A Portal is a way to a target.
type Portal struct {
	Target string // name of the target
	Addr   netip.AddrPort
	TPGT   int // 0 to 65535
}

// Query asks a server for all targets that it shows us, and returns their
// portals in the order of the answer. Errors are *StatusError,
// *ProtocolError and those of the network and the context.
func Query(ctx context.Context, cfg Config) ([]Portal, error) {
	if cfg.Timeout <= 0 {
		cfg.Timeout = DefaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	if cfg.Dial == nil {
		cfg.Dial = new(net.Dialer).DialContext
	}
	conn, err := cfg.Dial(ctx, "tcp", cfg.Server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	// What waits on the connection ends with the context.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	const transaction = 1
	if _, err := conn.Write(request(cfg.InitiatorName, transaction)); err != nil {
		return nil, fmt.Errorf("send: %w", cause(ctx, err))
	}
	msg, err := readMessage(conn, transaction)
	if err != nil {
		return nil, cause(ctx, err)
	}
	return parseAnswer(msg)
}

// cause prefers why the context ended to what that did to the connection.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// request makes the query: all nodes that are targets, with their portal
// groups (RFC 4171 section 5.6.2).
func request(name string, transaction uint16) []byte {
	b := make([]byte, headerLen, 512)
	b = appendAttribute(b, tagName, nameValue(name)) // the source
	b = appendAttribute(b, tagNodeType, []byte{0, 0, 0, nodeTarget})
	b = appendAttribute(b, tagDelimiter, nil)
	for _, tag := range []uint32{tagName, tagNodeType, tagPGName, tagPGAddress, tagPGPort, tagPGT} {
		b = appendAttribute(b, tag, nil)
	}
	appendHeader(b[:0], header{
		function: devAttrQry, length: len(b) - headerLen, flags: flagClient | flagFirst | flagLast, transaction: transaction,
	})
	return b
}

// readMessage reads the PDUs of one answer and returns their payloads in one
// piece.
func readMessage(r io.Reader, transaction uint16) ([]byte, error) {
	var msg []byte
	for sequence := uint16(0); ; sequence++ {
		h, err := readHeader(r)
		if err != nil {
			return nil, noEOF(err)
		}
		switch {
		case h.function != devAttrQryRsp || h.flags&flagServer == 0:
			return nil, &ProtocolError{Reason: fmt.Sprintf("function 0x%04x in answer to a query", h.function)}
		case h.transaction != transaction:
			return nil, &ProtocolError{Reason: fmt.Sprintf("answer to transaction %d", h.transaction)}
		case h.sequence != sequence:
			return nil, &ProtocolError{Reason: fmt.Sprintf("part %d where part %d was due", h.sequence, sequence)}
		case h.flags&flagAuth != 0:
			return nil, &ProtocolError{Reason: "authentication that nobody asked for"}
		case len(msg)+h.length > maxMessage:
			return nil, &ProtocolError{Reason: fmt.Sprintf("answer of more than %d bytes", maxMessage)}
		}
		start := len(msg)
		msg = append(msg, make([]byte, h.length)...)
		if _, err := io.ReadFull(r, msg[start:]); err != nil {
			return nil, noEOF(err)
		}
		if h.flags&flagLast != 0 {
			return msg, nil
		}
		if sequence == 1<<16-1 {
			return nil, &ProtocolError{Reason: "answer without an end"}
		}
	}
}

// noEOF makes an end that came too early one.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// parseAnswer reads the payload of the answer: a status, the key of the query
// again, a delimiter, and then the objects, each of which begins with its
// key attribute (RFC 4171 section 5.7.5.2).
func parseAnswer(msg []byte) ([]Portal, error) {
	if len(msg) < 4 {
		return nil, &ProtocolError{Reason: "answer without a status"}
	}
	switch status := binary.BigEndian.Uint32(msg); status {
	case 0:
	case 9: // no such entry
		return nil, nil
	default:
		return nil, &StatusError{Status: status}
	}
	b := msg[4:]
	for {
		a, rest, err := nextAttribute(b)
		if err != nil {
			return nil, err
		}
		b = rest
		if a.tag == tagDelimiter {
			break
		}
	}
	var p parser
	for len(b) > 0 {
		a, rest, err := nextAttribute(b)
		if err != nil {
			return nil, err
		}
		if err := p.add(a); err != nil {
			return nil, err
		}
		b = rest
	}
	p.endGroup()
	return p.result(), nil
}

// A parser collects the objects of an answer.
type parser struct {
	types map[string]uint32 // node types by name
	node  string            // the node whose attributes are being read

	groups []Portal
	group  Portal // the portal group whose attributes are being read
	addr   netip.Addr
	port   uint16
	access bool // it has a tag
}

func (p *parser) add(a attribute) error {
	// A server fills in what it does not have with an empty value.
	empty := len(a.value) == 0
	switch a.tag {
	case tagName:
		p.node = a.text()
	case tagNodeType:
		if empty {
			return nil
		}
		n, err := a.number()
		if err != nil {
			return err
		}
		if p.types == nil {
			p.types = make(map[string]uint32)
		}
		p.types[p.node] = n
	case tagPGName:
		p.endGroup()
		p.group.Target = a.text()
	case tagPGAddress:
		if empty {
			return nil
		}
		addr, err := a.address()
		if err != nil {
			return err
		}
		p.addr = addr
	case tagPGPort:
		if empty {
			return nil
		}
		n, err := a.number()
		if err != nil {
			return err
		}
		if n&0x10000 == 0 { // the bit says UDP (RFC 4171 section 6.3.2)
			p.port = uint16(n)
		}
	case tagPGT:
		if empty {
			return nil
		}
		n, err := a.number()
		if err != nil {
			return err
		}
		p.group.TPGT, p.access = int(n&0xffff), true
	}
	return nil
}

// endGroup keeps the portal group that has been read, if it is complete.
func (p *parser) endGroup() {
	if p.group.Target != "" && p.addr.IsValid() && p.port != 0 && p.access {
		p.group.Addr = netip.AddrPortFrom(p.addr, p.port)
		p.groups = append(p.groups, p.group)
	}
	p.group, p.addr, p.port, p.access = Portal{}, netip.Addr{}, 0, false
}

// result returns the portal groups of targets. A node whose type the server
// did not tell counts as a target: that is what was asked for.
func (p *parser) result() []Portal {
	var out []Portal
	for _, g := range p.groups {
		if t, ok := p.types[g.Target]; !ok || t&nodeTarget != 0 {
			out = append(out, g)
		}
	}
	return out
}
