// Command nbdfile copies a file to an NBD export on a unix socket or back:
//
//	nbdfile put SOCKET FILE
//	nbdfile get SOCKET FILE
//
// It is what make demo uses on a machine that has neither a kernel with nbd
// nor any NBD client: the demo needs nothing installed. It speaks the fixed
// newstyle handshake and simple replies, one request at a time.
package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
)

// The numbers of the protocol that this client needs, from the NBD project's
// doc/proto.md.
const (
	magicServer  = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption  = 0x49484156454f5054 // "IHAVEOPT"
	magicRequest = 0x25609513
	magicReply   = 0x67446698

	flagFixedNewstyle = 1 << 0
	flagNoZeroes      = 1 << 1
	optExportName     = 1

	cmdRead  = 0
	cmdWrite = 1
	cmdDisc  = 2
	cmdFlush = 3

	transFlagSendFlush = 1 << 2
)

// blockSize is what each request moves.
const blockSize = 1 << 20

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "nbdfile:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 3 || (args[0] != "put" && args[0] != "get") {
		return errors.New("usage: nbdfile put|get SOCKET FILE")
	}
	conn, err := net.Dial("unix", args[1])
	if err != nil {
		return err
	}
	defer conn.Close()
	c := &client{conn: conn, r: bufio.NewReader(conn)}
	if err := c.handshake(); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	if args[0] == "put" {
		err = c.put(args[2])
	} else {
		err = c.get(args[2])
	}
	return errors.Join(err, c.request(cmdDisc, 0, 0, nil))
}

type client struct {
	conn  net.Conn
	r     *bufio.Reader
	size  uint64 // of the export, bytes
	flags uint16 // what the server can do
}

// handshake asks for the default export.
func (c *client) handshake() error {
	var hello struct {
		Magic, Option uint64
		Flags         uint16
	}
	if err := binary.Read(c.r, binary.BigEndian, &hello); err != nil {
		return err
	}
	if hello.Magic != magicServer || hello.Option != magicOption || hello.Flags&flagFixedNewstyle == 0 {
		return errors.New("not an NBD server with the fixed newstyle handshake")
	}
	answer := binary.BigEndian.AppendUint32(nil, uint32(hello.Flags&(flagFixedNewstyle|flagNoZeroes)))
	answer = binary.BigEndian.AppendUint64(answer, magicOption)
	answer = binary.BigEndian.AppendUint32(answer, optExportName)
	answer = binary.BigEndian.AppendUint32(answer, 0) // the empty name
	if _, err := c.conn.Write(answer); err != nil {
		return err
	}
	var export struct {
		Size  uint64
		Flags uint16
	}
	if err := binary.Read(c.r, binary.BigEndian, &export); err != nil {
		return err
	}
	c.size, c.flags = export.Size, export.Flags
	if hello.Flags&flagNoZeroes == 0 {
		_, err := c.r.Discard(124)
		return err
	}
	return nil
}

func (c *client) request(cmd uint16, offset uint64, length uint32, data []byte) error {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 28+len(data)), magicRequest)
	b = binary.BigEndian.AppendUint16(b, 0)
	b = binary.BigEndian.AppendUint16(b, cmd)
	b = binary.BigEndian.AppendUint64(b, offset) // the cookie: one request at a time
	b = binary.BigEndian.AppendUint64(b, offset)
	b = binary.BigEndian.AppendUint32(b, length)
	_, err := c.conn.Write(append(b, data...))
	return err
}

func (c *client) reply(offset uint64) error {
	var h struct {
		Magic, Errno uint32
		Cookie       uint64
	}
	if err := binary.Read(c.r, binary.BigEndian, &h); err != nil {
		return err
	}
	switch {
	case h.Magic != magicReply || h.Cookie != offset:
		return errors.New("the server's reply is not one to our request")
	case h.Errno != 0:
		return fmt.Errorf("the server answers error %d at offset %d", h.Errno, offset)
	}
	return nil
}

func (c *client) put(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, blockSize)
	var offset uint64
	for {
		n, err := io.ReadFull(f, buf)
		if n > 0 {
			if offset+uint64(n) > c.size {
				return fmt.Errorf("%s is larger than the export (%d bytes)", path, c.size)
			}
			if err := c.request(cmdWrite, offset, uint32(n), buf[:n]); err != nil {
				return err
			}
			if err := c.reply(offset); err != nil {
				return err
			}
			offset += uint64(n)
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if c.flags&transFlagSendFlush == 0 {
		return nil
	}
	if err := c.request(cmdFlush, 0, 0, nil); err != nil {
		return err
	}
	return c.reply(0)
}

func (c *client) get(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	buf := make([]byte, blockSize)
	for offset := uint64(0); offset < c.size; {
		n := min(uint64(len(buf)), c.size-offset)
		if err := c.read(buf[:n], offset); err != nil {
			f.Close()
			return err
		}
		if _, err := f.Write(buf[:n]); err != nil {
			f.Close()
			return err
		}
		offset += n
	}
	return f.Close()
}

func (c *client) read(p []byte, offset uint64) error {
	if err := c.request(cmdRead, offset, uint32(len(p)), nil); err != nil {
		return err
	}
	if err := c.reply(offset); err != nil {
		return err
	}
	_, err := io.ReadFull(c.r, p)
	return err
}
