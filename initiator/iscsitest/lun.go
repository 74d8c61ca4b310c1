package iscsitest

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"sync"

	"github.com/goiscsi/goiscsi/initiator/scsi"
)

// A LUN is a logical unit. The exported fields are read when a Server starts
// to serve it and must not be changed afterwards.
type LUN struct {
	// Store holds the blocks. A disk needs one; other types have none.
	Store Store
	// BlockSize is the logical block size in bytes, a power of two from 512;
	// 0 means 512.
	BlockSize int
	// PhysicalExponent says that 2^n logical blocks make a physical one.
	PhysicalExponent uint8
	// ReadOnly refuses writes and reports the medium as write protected.
	ReadOnly bool
	// Type is the peripheral device type; the zero value is a disk.
	Type scsi.DeviceType
	// Vendor, Product and Revision are at most 8, 16 and 4 characters; empty
	// means GOISCSI, DISK (or CONTROLLER) and 0001.
	Vendor, Product, Revision string
	// Serial is the unit serial number; empty means one made from the
	// target's name and the number of the LUN.
	Serial string
	// NAA is the NAA designator, 8 or 16 bytes; nil means one made in the
	// same way.
	NAA []byte
	// Thin has the unit offer UNMAP and WRITE SAME with UNMAP. Its Store
	// must then be a Discarder.
	Thin bool
	// WriteCache reports a volatile write cache, which SYNCHRONIZE CACHE
	// and FUA write through.
	WriteCache bool
	// Rotational reports a disk of 7200 revolutions a minute instead of one
	// that does not rotate.
	Rotational bool
	// MaxTransfer is the longest READ or WRITE in blocks that the unit
	// accepts; 0 means no limit.
	MaxTransfer uint32

	unit
}

// unit is the state of a logical unit.
type unit struct {
	once sync.Once // identity
	// mu guards all below.
	mu sync.Mutex
	// rmw serialises COMPARE AND WRITE with itself.
	rmw      sync.Mutex
	faults   []*fault
	pr       reservations
	commands uint64
}

var (
	errNoStore     = errors.New("a disk needs a store")
	errBlockSize   = errors.New("block size is not a power of two from 512 to 65536")
	errStoreSize   = errors.New("store is smaller than a block")
	errNotDiscard  = errors.New("a thin unit's store must be a Discarder")
	errNAA         = errors.New("naa designator is not 8 or 16 bytes long")
	errNoLUN       = errors.New("is nil")
	errShortString = errors.New("vendor, product or revision is too long")
)

// check verifies the fields and fills in defaults.
func (l *LUN) check() error {
	if l == nil {
		return errNoLUN
	}
	if l.BlockSize == 0 {
		l.BlockSize = 512
	}
	if n := l.BlockSize; n < 512 || n > 65536 || n&(n-1) != 0 {
		return errBlockSize
	}
	if len(l.Vendor) > 8 || len(l.Product) > 16 || len(l.Revision) > 4 {
		return errShortString
	}
	if n := len(l.NAA); n != 0 && n != 8 && n != 16 {
		return errNAA
	}
	if l.Type != scsi.TypeDisk {
		return nil
	}
	if l.Store == nil {
		return errNoStore
	}
	if l.Store.Size() < int64(l.BlockSize) {
		return errStoreSize
	}
	if _, ok := l.Store.(Discarder); l.Thin && !ok {
		return errNotDiscard
	}
	return nil
}

// identify makes up what identifies the unit from the first target and number
// it is served as: the same at every start.
func (l *LUN) identify(target string, number uint64) {
	l.once.Do(func() {
		h := sha256.New()
		h.Write([]byte(target))
		h.Write(binary.BigEndian.AppendUint64(nil, number))
		sum := h.Sum(nil)
		if l.Serial == "" {
			l.Serial = hex.EncodeToString(sum[:8])
		}
		if l.NAA == nil {
			l.NAA = append([]byte{0x60 | sum[8]&0xf}, sum[9:24]...)
		}
		if l.Vendor == "" {
			l.Vendor = "GOISCSI"
		}
		if l.Product == "" {
			l.Product = "DISK"
			if l.Type != scsi.TypeDisk {
				l.Product = "CONTROLLER"
			}
		}
		if l.Revision == "" {
			l.Revision = "0001"
		}
	})
}

// blocks returns the number of blocks.
func (l *LUN) blocks() uint64 { return uint64(l.Store.Size()) / uint64(l.BlockSize) }

// isDisk reports whether block commands apply.
func (l *LUN) isDisk() bool { return l.Type == scsi.TypeDisk }

// inRange reports whether the blocks lie on the unit.
func (l *LUN) inRange(lba, blocks uint64) bool {
	n := l.blocks()
	return lba <= n && blocks <= n-lba
}

// Commands returns how many SCSI commands the unit has seen.
func (l *LUN) Commands() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.commands
}

// A fault is a failure ordered by FailNext.
type fault struct {
	status scsi.Status
	sense  []byte
	match  func(cdb []byte) bool
	left   int
}

// FailNext has the next command that match accepts, nil accepting all, end
// with the status and, for CHECK CONDITION, the encoded sense data, without
// having done anything. Orders are served first come first.
func (l *LUN) FailNext(status scsi.Status, sense []byte, match func(cdb []byte) bool) {
	l.FailN(1, status, sense, match)
}

// FailN is FailNext for the next n commands; a negative n fails them until
// StopFailing.
func (l *LUN) FailN(n int, status scsi.Status, sense []byte, match func(cdb []byte) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.faults = append(l.faults, &fault{status, sense, match, n})
}

// StopFailing withdraws all orders of FailNext and FailN.
func (l *LUN) StopFailing() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.faults = nil
}

// nextFault counts a command and returns the fault that it meets, if any.
func (l *LUN) nextFault(cdb []byte) *fault {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.commands++
	for i, f := range l.faults {
		if f.match != nil && !f.match(cdb) {
			continue
		}
		if f.left--; f.left == 0 {
			l.faults = append(l.faults[:i:i], l.faults[i+1:]...)
		}
		return f
	}
	return nil
}
