package pdu

import (
	"errors"
	"io"
)

// minReaderSize holds any header with its digest.
const minReaderSize = 4096

// directRead is the least rest of a data segment that is worth a read of its
// own, straight into the caller's memory. A smaller rest comes with whatever
// follows it: one system call less for one small copy more.
const directRead = 4096

// smallMove is how many bytes are moved to the beginning of the buffer just
// to make the next read longer.
const smallMove = 512

// readAhead is how many bytes may be read behind a data segment that is read
// straight into the caller's memory: the next header should come along, but
// not more of the next segment, which would have to be copied.
const readAhead = 1024

// digestPiece is how many bytes of a data segment with a digest are read at a time,
// so that the digest is computed while they are in the processor's cache.
const digestPiece = 128 << 10

// A VectorReader is a source that can read into two buffers with one system
// call. A Reader over one gets a long data segment and the header behind it
// together.
type VectorReader interface {
	io.Reader
	// ReadVector reads at least one byte into a and, once that is full, b. The
	// error is as that of Read.
	ReadVector(a, b []byte) (n int, err error)
}

// maxEmptyReads is how many times in a row a source may return nothing.
const maxEmptyReads = 100

// A Reader reads PDUs from a byte stream. It reads ahead into its buffer and
// parses as many PDUs as came; long data segments it reads straight into
// the caller's memory.
//
// For each PDU call Next and then, in any combination that takes the whole
// data segment, one of: ReadData; ReadDataPart as often as needed and
// FinishData; Data; or nothing, which discards it unchecked.
//
// To answer in batches, wrap the source: its Read is called only when nothing
// more can be done with what is in memory, which is the moment to flush.
// Buffered and Ready tell the same from outside.
type Reader struct {
	src    io.Reader
	vector VectorReader // src, or nil if it is none
	// buf[r:w] has been read from src and not yet been used.
	buf  []byte
	r, w int

	headerDigest, dataDigest bool
	maxSegment               int

	hdr Header
	ahs [MaxAHSLen]byte

	// The data segment of the current PDU: how many bytes are left of it
	// and of the padding and digest behind it, and the digest so far. whole
	// is what Data returned.
	left, tail int
	crc        uint32
	whole      []byte
	big        []byte // for segments that do not fit buf

	err error // sticky: the framing is lost
}

// NewReader returns a Reader for src with a buffer of bufSize bytes, 64 KiB
// if that is 0. Data segments are limited to 8192 bytes, the default of
// MaxRecvDataSegmentLength, until SetMaxDataSegmentLength allows more.
func NewReader(src io.Reader, bufSize int) *Reader {
	if bufSize == 0 {
		bufSize = 64 << 10
	}
	vector, _ := src.(VectorReader)
	return &Reader{
		src:        src,
		vector:     vector,
		buf:        make([]byte, max(bufSize, minReaderSize)),
		maxSegment: 8192,
	}
}

// SetDigests says whether headers and data segments carry a CRC32C digest. It
// applies from the next PDU on.
func (r *Reader) SetDigests(header, data bool) { r.headerDigest, r.dataDigest = header, data }

// SetMaxDataSegmentLength sets the greatest DataSegmentLength that Next
// accepts, in bytes: what was declared as MaxRecvDataSegmentLength.
func (r *Reader) SetMaxDataSegmentLength(n int) { r.maxSegment = min(n, MaxDataSegmentLength) }

// Buffered returns the number of bytes in memory behind the current PDU. If it
// is 0, the next call of Next reads from the source.
func (r *Reader) Buffered() int { return max(0, r.w-r.r-r.left-r.tail) }

// Ready reports whether the whole header of the next PDU is in memory, so
// that Next returns without reading from the source.
func (r *Reader) Ready() bool {
	b := r.buf[min(r.w, r.r+r.left+r.tail):r.w]
	return len(b) >= BHSLen && len(b) >= BHSLen+int(b[4])*4+r.headerTail()
}

func (r *Reader) headerTail() int {
	if r.headerDigest {
		return DigestLen
	}
	return 0
}

// Next discards what is left of the current PDU and reads the header of the
// next one. The Header is valid until the following call of Next.
//
// The error is io.EOF if the stream ends between two PDUs, and
// io.ErrUnexpectedEOF if it ends elsewhere; a *FormatError for a
// DataSegmentLength above the limit; a *DigestError with Header set; or that
// of the source. After any of them the stream cannot be used any more and
// Next returns the same error again.
func (r *Reader) Next() (*Header, error) {
	if r.err == nil {
		r.err = r.next()
	}
	if r.err != nil {
		return nil, r.err
	}
	return &r.hdr, nil
}

func (r *Reader) next() error {
	if err := r.discard(r.left + r.tail); err != nil {
		return err
	}
	r.left, r.tail, r.whole, r.crc = 0, 0, nil, 0
	if err := r.need(BHSLen); err != nil {
		if err == io.ErrUnexpectedEOF && r.w == r.r {
			return io.EOF
		}
		return err
	}
	ahsLen := int(r.buf[r.r+4]) * 4
	if err := r.need(BHSLen + ahsLen + r.headerTail()); err != nil {
		return err
	}
	b := r.buf[r.r:]
	if r.headerDigest {
		n := BHSLen + ahsLen
		want, got := digestFromWire(b[n:]), CRC32C(0, b[:n])
		if want != got {
			return &DigestError{Header: true, Want: want, Got: got}
		}
	}
	r.hdr.BHS = [BHSLen]byte(b)
	r.hdr.AHS = r.ahs[:copy(r.ahs[:], b[BHSLen:BHSLen+ahsLen])]
	n := r.hdr.DataSegmentLength()
	if n > r.maxSegment {
		return formatErr(r.hdr.Opcode(), "DataSegmentLength", "exceeds MaxRecvDataSegmentLength")
	}
	r.r += BHSLen + ahsLen + r.headerTail()
	r.left, r.tail = n, pad(n)
	if r.dataDigest && n > 0 {
		r.tail += DigestLen
	}
	return nil
}

var errDataLength = errors.New("iscsi: buffer does not have the length of the data segment")

// ReadData reads the whole data segment into dst, whose length must be
// DataSegmentLength, and checks its digest. A *DigestError leaves the Reader at the
// next PDU; what dst holds is then not to be used.
func (r *Reader) ReadData(dst []byte) error {
	if len(dst) != r.left {
		return errDataLength
	}
	if err := r.ReadDataPart(dst); err != nil {
		return err
	}
	return r.FinishData()
}

// ReadDataPart reads the next len(dst) bytes of the data segment, which must
// have that many left. The digest is checked by FinishData.
func (r *Reader) ReadDataPart(dst []byte) error {
	if r.err != nil {
		return r.err
	}
	if len(dst) > r.left || r.whole != nil {
		return errDataLength
	}
	rest := dst
	for len(rest) > 0 {
		if r.r == r.w && len(rest) >= directRead {
			if err := r.readDirect(rest); err != nil {
				return r.fail(err)
			}
			break
		}
		if r.r == r.w {
			if err := r.need(1); err != nil {
				return r.fail(err)
			}
		}
		n := copy(rest, r.buf[r.r:r.w])
		r.r += n
		r.took(rest[:n])
		rest = rest[n:]
	}
	return nil
}

// took notes what was read of the data segment.
func (r *Reader) took(b []byte) {
	r.left -= len(b)
	if r.dataDigest {
		r.crc = CRC32C(r.crc, b)
	}
}

// readDirect fills dst from the source, past the buffer, which is empty.
func (r *Reader) readDirect(dst []byte) error {
	r.r, r.w = 0, 0
	for empty := 0; len(dst) > 0; {
		piece, ahead := dst, r.buf[:readAhead]
		if r.dataDigest && len(dst) > digestPiece {
			piece, ahead = dst[:digestPiece], nil
		}
		var n int
		var err error
		if r.vector != nil {
			n, err = r.vector.ReadVector(piece, ahead)
		} else {
			n, err = r.src.Read(piece)
		}
		if n > len(dst) {
			r.w = n - len(dst)
			n = len(dst)
		}
		r.took(dst[:n])
		dst = dst[n:]
		switch {
		case len(dst) == 0:
			return nil // an error comes again
		case err != nil:
			return err
		case n > 0:
			empty = 0
		default:
			if empty++; empty == maxEmptyReads {
				return io.ErrNoProgress
			}
		}
	}
	return nil
}

// DataLeft returns how many bytes of the data segment have not been read.
func (r *Reader) DataLeft() int { return r.left }

// FinishData reads what is left of the data segment, discards it and checks
// the digest of the whole. The error is that of ReadData.
func (r *Reader) FinishData() error {
	if r.err != nil {
		return r.err
	}
	for r.left > 0 {
		if r.r == r.w {
			if err := r.need(1); err != nil {
				return r.fail(err)
			}
		}
		n := min(r.left, r.w-r.r)
		if r.dataDigest {
			r.crc = CRC32C(r.crc, r.buf[r.r:r.r+n])
		}
		r.r += n
		r.left -= n
	}
	n := r.tail
	if n == 0 {
		return nil
	}
	if err := r.need(n); err != nil {
		return r.fail(err)
	}
	b := r.buf[r.r : r.r+n]
	r.r += n
	r.tail = 0
	if !r.dataDigest {
		return nil
	}
	// The digest covers the padding.
	got := CRC32C(r.crc, b[:n-DigestLen])
	if want := digestFromWire(b[n-DigestLen:]); want != got {
		return &DigestError{Want: want, Got: got}
	}
	return nil
}

// Data reads the whole data segment into memory of the Reader's and checks
// its digest; the slice is valid until Next. It is never nil, so that it can
// go to a Decode. A second call for the same PDU returns the same slice. The
// error is that of ReadData.
func (r *Reader) Data() ([]byte, error) {
	if r.err != nil {
		return nil, r.err
	}
	if r.whole != nil {
		return r.whole, nil
	}
	n := r.left
	if n != r.hdr.DataSegmentLength() {
		return nil, errDataLength // a part was read already
	}
	if n+r.tail <= len(r.buf) {
		// It fits the buffer: no copy.
		if err := r.need(n + r.tail); err != nil {
			return nil, r.fail(err)
		}
		data := r.buf[r.r : r.r+n : r.r+n]
		if err := r.FinishData(); err != nil {
			return nil, err
		}
		r.whole = data
		return data, nil
	}
	if cap(r.big) < n {
		r.big = make([]byte, n)
	}
	data := r.big[:n:n]
	if err := r.ReadData(data); err != nil {
		return nil, err
	}
	r.whole = data
	return data, nil
}

// need reads until n bytes are in the buffer, n ≤ len(buf). It does not move
// data that Data returned: that is called last for a PDU.
func (r *Reader) need(n int) error {
	if r.w-r.r >= n {
		return nil
	}
	if r.r == r.w {
		r.r, r.w = 0, 0
	} else if r.r+n > len(r.buf) || r.w-r.r < smallMove {
		r.w = copy(r.buf, r.buf[r.r:r.w])
		r.r = 0
	}
	for empty := 0; r.w-r.r < n; {
		m, err := r.src.Read(r.buf[r.w:])
		r.w += m
		switch {
		case r.w-r.r >= n:
			return nil
		case err == io.EOF:
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		case m == 0:
			if empty++; empty == maxEmptyReads {
				return io.ErrNoProgress
			}
		default:
			empty = 0
		}
	}
	return nil
}

// discard skips n bytes.
func (r *Reader) discard(n int) error {
	for {
		m := min(n, r.w-r.r)
		r.r += m
		if n -= m; n == 0 {
			return nil
		}
		if err := r.need(1); err != nil {
			return err
		}
	}
}

// fail makes an error in the middle of a PDU sticky.
func (r *Reader) fail(err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	r.err = err
	return err
}
