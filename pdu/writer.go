package pdu

import (
	"io"
	"net"
)

// copyLimit is the longest payload in bytes that is copied beside its header:
// below it the copy is cheaper than two more elements of a writev.
const copyLimit = 512

// A Writer collects PDUs and sends them together. Headers, digests and short
// payloads go to a slab of its own; long payloads are referenced
// and must stay as they are until Flush or Reset returns.
type Writer struct {
	dst                      io.Writer
	headerDigest, dataDigest bool

	slab []byte
	// cuts are the places in slab at which a referenced payload stands
	// between two parts of it.
	cuts []cut
	size int

	// vecs is the memory of bufs, which net.Buffers.WriteTo consumes.
	vecs [][]byte
	bufs net.Buffers
}

type cut struct {
	at   int
	data []byte
}

// NewWriter returns a Writer to dst. If dst is a TCP or Unix connection of
// package net, Flush sends everything with one writev system call, or as few
// as the system's limits allow.
func NewWriter(dst io.Writer) *Writer { return &Writer{dst: dst} }

// SetDigests says whether headers and data segments get a CRC32C digest. It
// applies from the next Append on.
func (w *Writer) SetDigests(header, data bool) { w.headerDigest, w.dataDigest = header, data }

// Append adds a PDU. Its header is encoded at once, so that p can be used
// again; the payload is referenced. After an error, which is a *FormatError
// of p.AppendHeader, the Writer is as it was before.
func (w *Writer) Append(p PDU) error {
	start := len(w.slab)
	slab, err := p.AppendHeader(w.slab)
	if err != nil {
		w.slab = slab[:start]
		return err
	}
	w.slab = slab
	w.finishHeader(start)
	if data := p.Payload(); len(data) > 0 {
		var crc uint32
		if w.dataDigest {
			crc = CRC32C(0, data)
		}
		w.addData(data)
		w.finishData(len(data), crc)
	}
	w.size += len(w.slab) - start
	return nil
}

// AppendVec adds a PDU whose data segment is the concatenation of vec instead
// of p.Payload, which must be empty.
func (w *Writer) AppendVec(p PDU, vec [][]byte) error {
	n := 0
	for _, data := range vec {
		n += len(data)
	}
	if n > MaxDataSegmentLength || len(p.Payload()) > 0 {
		return formatErr(p.Opcode(), "DataSegmentLength", "data is longer than 24 bits can say")
	}
	start := len(w.slab)
	slab, err := p.AppendHeader(w.slab)
	if err != nil {
		w.slab = slab[:start]
		return err
	}
	w.slab = slab
	putSegmentLength(w.slab[start:], n)
	w.finishHeader(start)
	if n > 0 {
		var crc uint32
		for _, data := range vec {
			if w.dataDigest {
				crc = CRC32C(crc, data)
			}
			w.addData(data)
		}
		w.finishData(n, crc)
	}
	w.size += len(w.slab) - start
	return nil
}

// AppendRaw adds bytes as they are. It is for test doubles that send what no
// encoder would.
func (w *Writer) AppendRaw(b []byte) {
	w.slab = append(w.slab, b...)
	w.size += len(b)
}

func (w *Writer) finishHeader(start int) {
	if w.headerDigest {
		w.slab = AppendDigest(w.slab, CRC32C(0, w.slab[start:]))
	}
}

func (w *Writer) addData(data []byte) {
	if len(data) <= copyLimit {
		w.slab = append(w.slab, data...)
		return
	}
	w.cuts = append(w.cuts, cut{len(w.slab), data})
	w.size += len(data)
}

func (w *Writer) finishData(n int, crc uint32) {
	p := padding[:pad(n)]
	w.slab = append(w.slab, p...)
	if w.dataDigest {
		w.slab = AppendDigest(w.slab, CRC32C(crc, p))
	}
}

// Buffered returns the number of bytes waiting for Flush.
func (w *Writer) Buffered() int { return w.size }

// Flush sends everything that was appended and forgets it, also when there is
// an error, which is that of the destination: the stream is then of no use
// any more.
func (w *Writer) Flush() error {
	if w.size == 0 {
		return nil
	}
	defer w.Reset()
	if len(w.cuts) == 0 {
		_, err := w.dst.Write(w.slab)
		return err
	}
	w.bufs = w.Buffers()
	_, err := w.bufs.WriteTo(w.dst)
	return err
}

// Buffers returns the bytes waiting for Flush as a list of slices, for callers
// that write them by themselves, without blocking for example, and then call
// Reset. Slices and list are valid until Append, Flush or Reset; the list may
// be modified. Call it once for what was appended.
func (w *Writer) Buffers() [][]byte {
	from := 0
	for _, c := range w.cuts {
		if c.at > from {
			w.vecs = append(w.vecs, w.slab[from:c.at])
		}
		w.vecs = append(w.vecs, c.data)
		from = c.at
	}
	if from < len(w.slab) {
		w.vecs = append(w.vecs, w.slab[from:])
	}
	return w.vecs
}

// Reset forgets what was appended and not flushed, and lets go of the
// payloads.
func (w *Writer) Reset() {
	if cap(w.slab) > maxIdleSlab {
		w.slab = nil
	}
	w.slab = w.slab[:0]
	clear(w.cuts)
	w.cuts = w.cuts[:0]
	clear(w.vecs)
	w.vecs = w.vecs[:0]
	w.bufs = nil
	w.size = 0
}

// maxIdleSlab bounds the memory an idle Writer keeps, in bytes.
const maxIdleSlab = 1 << 20
