//go:build linux

package nbdtest

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"

	"github.com/goiscsi/goiscsi/nbd"
)

// A Client does the client's side of the fixed newstyle handshake.
type Client struct {
	nc net.Conn
}

// NewClient reads the server's greeting from nc and answers it with flags:
// nbd.HandshakeFixedNewstyle | nbd.HandshakeNoZeroes for a modern client.
func NewClient(nc net.Conn, flags uint32) (*Client, error) {
	var b [nbd.GreetingSize]byte
	if _, err := io.ReadFull(nc, b[:]); err != nil {
		return nil, err
	}
	if m := binary.BigEndian.Uint64(b[:]); m != nbd.HandshakeMagic {
		return nil, &nbd.FormatError{Message: "greeting", Field: "magic", Got: m}
	}
	if m := binary.BigEndian.Uint64(b[8:]); m != nbd.OptionMagic {
		return nil, &nbd.FormatError{Message: "greeting", Field: "option magic", Got: m}
	}
	if _, err := nc.Write(binary.BigEndian.AppendUint32(nil, flags)); err != nil {
		return nil, err
	}
	return &Client{nc: nc}, nil
}

// Option sends an option and returns the payloads of the replies before the
// acknowledgement. A refusal is an *nbd.OptionError.
func (c *Client) Option(o nbd.Option, data []byte) ([][]byte, error) {
	if _, err := c.nc.Write(nbd.AppendOption(nil, o, data)); err != nil {
		return nil, err
	}
	var list [][]byte
	for {
		var b [nbd.OptionReplyHeaderSize]byte
		if _, err := io.ReadFull(c.nc, b[:]); err != nil {
			return nil, err
		}
		h, err := nbd.ParseOptionReplyHeader(b[:])
		if err != nil {
			return nil, err
		}
		payload := make([]byte, h.Length)
		if _, err := io.ReadFull(c.nc, payload); err != nil {
			return nil, err
		}
		switch {
		case h.Option != o:
			return nil, fmt.Errorf("nbdtest: reply to option %d, want %d", h.Option, o)
		case h.Type.IsError():
			return nil, &nbd.OptionError{Option: o, Type: h.Type, Message: string(payload)}
		case h.Type == nbd.RepAck:
			return list, nil
		}
		list = append(list, payload)
	}
}

// List returns the names of the exports.
func (c *Client) List() ([]string, error) {
	payloads, err := c.Option(nbd.OptList, nil)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, p := range payloads {
		if len(p) < 4 || int(binary.BigEndian.Uint32(p)) > len(p)-4 {
			return nil, &nbd.FormatError{Message: "server reply", Field: "name length", Got: uint64(len(p))}
		}
		names = append(names, string(p[4:4+binary.BigEndian.Uint32(p)]))
	}
	return names, nil
}

// Info asks for an export's information, NBD_INFO_EXPORT first.
func (c *Client) Info(name string, want ...nbd.InfoType) ([]nbd.Info, error) {
	return c.info(nbd.OptInfo, name, want)
}

// Go chooses an export. Transmission follows.
func (c *Client) Go(name string, want ...nbd.InfoType) (*Peer, []nbd.Info, error) {
	infos, err := c.info(nbd.OptGo, name, want)
	if err != nil {
		return nil, nil, err
	}
	return NewPeer(c.nc), infos, nil
}

func (c *Client) info(o nbd.Option, name string, want []nbd.InfoType) ([]nbd.Info, error) {
	payloads, err := c.Option(o, (&nbd.InfoRequest{Name: name, Infos: want}).Append(nil))
	if err != nil {
		return nil, err
	}
	var infos []nbd.Info
	for _, p := range payloads {
		i, err := nbd.ParseInfo(p)
		if err != nil {
			return nil, err
		}
		infos = append(infos, i)
	}
	return infos, nil
}

// ExportName chooses an export in the old way, which the server refuses by
// hanging up. zeroes says that the client did not set nbd.HandshakeNoZeroes.
// Transmission follows.
func (c *Client) ExportName(name string, zeroes bool) (*Peer, uint64, nbd.TransmissionFlags, error) {
	if _, err := c.nc.Write(nbd.AppendOption(nil, nbd.OptExportName, []byte(name))); err != nil {
		return nil, 0, 0, err
	}
	b := make([]byte, 10)
	if zeroes {
		b = make([]byte, 10+124)
	}
	if _, err := io.ReadFull(c.nc, b); err != nil {
		return nil, 0, 0, err
	}
	return NewPeer(c.nc), binary.BigEndian.Uint64(b), nbd.TransmissionFlags(binary.BigEndian.Uint16(b[8:])), nil
}

// Abort ends the handshake.
func (c *Client) Abort() error {
	_, err := c.Option(nbd.OptAbort, nil)
	return err
}
