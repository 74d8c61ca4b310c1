//go:build linux

package nbd

import (
	"fmt"
	"math/bits"
	"sync/atomic"
	"syscall"
)

// Limits of an export's block sizes in bytes.
const (
	// MaxPayload is the largest read or write that is served, and the default
	// of Export.MaxBlockSize. It is what the kernel's driver may send (65536
	// sectors) and what proto.md tells clients to expect without negotiation.
	MaxPayload = 32 << 20
	// maxNameLen is the protocol's bound for names and descriptions.
	maxNameLen = 4096
)

// An Export describes a disk to clients. It must not be changed while it is
// served, but for its size, by SetSize. The zero value of a field has the
// meaning that its comment tells.
type Export struct {
	// Size in bytes. Connections read it atomically. It is the first field for
	// the sake of its alignment on 32-bit machines.
	Size uint64
	// Name under which a Server offers it; up to 4096 bytes of UTF-8, may be
	// empty. The kernel's driver does not see it.
	Name string
	// Description is shown to clients that ask; may be empty.
	Description string
	// BlockSize is the unit of offsets and lengths, a power of two; 0 means 1,
	// anything goes. Requests that are not aligned to it get EINVAL.
	BlockSize uint32
	// PreferredBlockSize is the hint for good performance, a power of two not
	// below BlockSize; 0 means the larger of 4096 and BlockSize.
	PreferredBlockSize uint32
	// MaxBlockSize bounds the length of one read or write, a multiple of
	// BlockSize up to MaxPayload; 0 means MaxPayload. TRIM and WRITE_ZEROES
	// are not bound by it: they arrive with up to 4 GiB in one request.
	MaxBlockSize uint32
	// ReadOnly refuses all that changes data with EPERM.
	ReadOnly bool
	// Flush, FUA, Trim and WriteZeroes say what the Backend serves; a client
	// that uses what is not set gets EINVAL.
	Flush, FUA, Trim, WriteZeroes bool
	// MultiConn says that a flush on one connection covers the writes completed
	// on all of them, so that a client may use several.
	MultiConn bool
	// Rotational says that seeks are dear.
	Rotational bool
}

// SetSize changes the size for all connections that serve the export, at once.
// It may be called at any time; requests that were checked before may still be
// in flight beyond a smaller size.
func (e *Export) SetSize(size uint64) { atomic.StoreUint64(&e.Size, size) }

func (e *Export) size() uint64 { return atomic.LoadUint64(&e.Size) }

// Flags returns the transmission flags that describe the export.
func (e *Export) Flags() TransmissionFlags {
	f := FlagHasFlags
	for _, x := range []struct {
		on   bool
		flag TransmissionFlags
	}{
		{e.ReadOnly, FlagReadOnly},
		{e.Flush, FlagSendFlush},
		{e.FUA, FlagSendFUA},
		{e.Rotational, FlagRotational},
		{e.Trim && !e.ReadOnly, FlagSendTrim},
		{e.WriteZeroes && !e.ReadOnly, FlagSendWriteZeroes},
		{e.MultiConn, FlagCanMultiConn},
	} {
		if x.on {
			f |= x.flag
		}
	}
	return f
}

// Validate reports the first field that is out of its range.
func (e *Export) Validate() error {
	smallest, pref, largest := e.blockSizes()
	switch {
	case len(e.Name) > maxNameLen:
		return fmt.Errorf("nbd: export name of %d bytes is longer than %d", len(e.Name), maxNameLen)
	case len(e.Description) > maxNameLen:
		return fmt.Errorf("nbd: description of %d bytes is longer than %d", len(e.Description), maxNameLen)
	case bits.OnesCount32(smallest) != 1 || smallest > 64<<10:
		return fmt.Errorf("nbd: block size %d is not a power of two up to 64 KiB", smallest)
	case bits.OnesCount32(pref) != 1 || pref < smallest:
		return fmt.Errorf("nbd: preferred block size %d is not a power of two from %d", pref, smallest)
	case largest < smallest || largest%smallest != 0 || largest > MaxPayload:
		return fmt.Errorf("nbd: maximum block size %d is not a multiple of %d up to %d", largest, smallest, MaxPayload)
	case e.size() > 1<<63-1:
		return fmt.Errorf("nbd: size %d exceeds 2^63-1", e.size())
	}
	return nil
}

// blockSizes returns the three block sizes with their defaults.
func (e *Export) blockSizes() (smallest, preferred, largest uint32) {
	smallest, preferred, largest = e.BlockSize, e.PreferredBlockSize, e.MaxBlockSize
	if smallest == 0 {
		smallest = 1
	}
	if preferred == 0 {
		preferred = max(4096, smallest)
	}
	if largest == 0 {
		largest = MaxPayload
	}
	return smallest, preferred, largest
}

// check returns the errno with which a request has to be refused, or 0.
// The choice of errnos is that of proto.md, "Error values".
func (e *Export) check(h *RequestHeader, blockMask uint64, largest uint32) syscall.Errno {
	allowed := CommandFlags(0)
	if e.FUA {
		// Clients may set FUA on any command once it is negotiated.
		allowed |= CmdFlagFUA
	}
	changes, bounded := false, false
	switch h.Cmd {
	case CmdRead:
		bounded = true
	case CmdWrite:
		changes, bounded = true, true
	case CmdFlush:
		if !e.Flush {
			return syscall.EINVAL
		}
		if h.Flags&^allowed != 0 {
			return syscall.EINVAL
		}
		return 0 // offset and length are reserved
	case CmdTrim:
		if !e.Trim {
			return syscall.EINVAL
		}
		changes = true
	case CmdWriteZeroes:
		if !e.WriteZeroes {
			return syscall.EINVAL
		}
		allowed |= CmdFlagNoHole
		changes = true
	default:
		return syscall.EINVAL
	}
	switch {
	case changes && e.ReadOnly:
		return syscall.EPERM
	case h.Flags&^allowed != 0, h.Length == 0, bounded && h.Length > largest,
		(h.Offset|uint64(h.Length))&blockMask != 0:
		return syscall.EINVAL
	}
	if size := e.size(); h.Offset > size || uint64(h.Length) > size-h.Offset {
		if h.Cmd == CmdWrite || h.Cmd == CmdWriteZeroes {
			return syscall.ENOSPC
		}
		return syscall.EINVAL
	}
	return 0
}
