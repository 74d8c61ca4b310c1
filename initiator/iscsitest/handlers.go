package iscsitest

import (
	"github.com/goiscsi/goiscsi/initiator/scsi"
)

// An access is what a command does to the medium, for reservations and write
// protection.
type access uint8

const (
	accessNone  access = iota // allowed whoever holds a reservation
	accessRead                // reads the medium or its state
	accessWrite               // changes the medium
)

// A handler executes the commands with one operation code.
type handler struct {
	// run executes the command with all its data; nil if there is a sink.
	run func(c *Conn, q *request, data []byte) error
	// sink takes data of a write piece by piece, at off of the transfer.
	sink func(q *request, data []byte, off int64) *result
	// length returns how many bytes the command calls for from the
	// initiator; nil means none.
	length func(q *request) int64
	// access is what the command does to the medium.
	access access
	// disk says that only disks have the command; blocks that LBA and
	// Blocks have to lie on the disk; read that it is one of the READs.
	disk, blocks, read bool
	// anyLUN says that the command is answered for a LUN that has no unit;
	// noAttention that a unit attention does not get in its way.
	anyLUN, noAttention bool
	// usage are the bits of the CDB that count, for REPORT SUPPORTED
	// OPERATION CODES; bytes left out are zero.
	usage []byte
}

func (q *request) sink() func(*request, []byte, int64) *result { return q.h.sink }

// newHandlers returns the table of handlers by operation code. It is a
// function and no variable because one of the handlers reports the table.
func newHandlers() *[256]handler {
	read := handler{run: readBlocks, access: accessRead, disk: true, blocks: true, read: true}
	write := handler{sink: writeBlocks, length: (*request).bytes, access: accessWrite, disk: true, blocks: true}
	verify := handler{run: verifyBlocks, length: verifyLength, access: accessRead, disk: true, blocks: true}
	writeVerify := write
	sync := handler{run: synchronize, access: accessNone, disk: true, blocks: true}
	same := handler{run: writeSame, length: sameLength, access: accessWrite, disk: true, blocks: true}
	usage := func(h handler, u ...byte) handler {
		h.usage = u
		return h
	}
	const (
		rw = 0xf8 // protection, DPO, FUA
		ff = 0xff
	)
	return &[256]handler{
		scsi.OpTestUnitReady:  {run: testUnitReady, access: accessNone, usage: []byte{ff, 0, 0, 0, 0, 0}},
		scsi.OpRequestSense:   {run: requestSense, anyLUN: true, noAttention: true, usage: []byte{ff, 1, 0, 0, ff, 0}},
		scsi.OpInquiry:        {run: inquiry, anyLUN: true, noAttention: true, usage: []byte{ff, 1, ff, ff, ff, 0}},
		scsi.OpReportLUNs:     {run: reportLUNs, anyLUN: true, noAttention: true, usage: []byte{ff, 0, ff, 0, 0, 0, ff, ff, ff, ff, 0, 0}},
		scsi.OpModeSense6:     {run: modeSense, access: accessNone, usage: []byte{ff, 8, ff, ff, ff, 0}},
		scsi.OpModeSense10:    {run: modeSense, access: accessNone, usage: []byte{ff, 8, ff, ff, 0, 0, 0, ff, ff, 0}},
		scsi.OpStartStopUnit:  {run: startStop, access: accessNone, disk: true, usage: []byte{ff, 1, 0, 0, 3, 0}},
		scsi.OpPreventAllow:   {run: testUnitReady, access: accessNone, usage: []byte{ff, 0, 0, 0, 3, 0}},
		scsi.OpReadCapacity10: {run: readCapacity10, access: accessNone, disk: true, usage: []byte{ff, 0, 0, 0, 0, 0, 0, 0, 0, 0}},
		scsi.OpServiceActionIn16: {
			run: serviceActionIn, access: accessNone, disk: true,
			usage: []byte{ff, 0x1f, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, 0, 0},
		},
		scsi.OpMaintenanceIn: {
			run: maintenanceIn, access: accessNone,
			usage: []byte{ff, 0x1f, 0x87, ff, ff, ff, ff, ff, ff, ff, 0, 0},
		},

		scsi.OpRead6:              usage(read, ff, 0x1f, ff, ff, ff, 0),
		scsi.OpRead10:             usage(read, ff, rw, ff, ff, ff, ff, 0, ff, ff, 0),
		scsi.OpRead12:             usage(read, ff, rw, ff, ff, ff, ff, ff, ff, ff, ff, 0, 0),
		scsi.OpRead16:             usage(read, ff, rw, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, 0, 0),
		scsi.OpWrite6:             usage(write, ff, 0x1f, ff, ff, ff, 0),
		scsi.OpWrite10:            usage(write, ff, rw, ff, ff, ff, ff, 0, ff, ff, 0),
		scsi.OpWrite12:            usage(write, ff, rw, ff, ff, ff, ff, ff, ff, ff, ff, 0, 0),
		scsi.OpWrite16:            usage(write, ff, rw, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, 0, 0),
		scsi.OpWriteAndVerify10:   usage(writeVerify, ff, 0xf2, ff, ff, ff, ff, 0, ff, ff, 0),
		scsi.OpWriteAndVerify16:   usage(writeVerify, ff, 0xf2, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, 0, 0),
		scsi.OpVerify10:           usage(verify, ff, 0xf6, ff, ff, ff, ff, 0, ff, ff, 0),
		scsi.OpVerify16:           usage(verify, ff, 0xf6, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, 0, 0),
		scsi.OpSynchronizeCache10: usage(sync, ff, 2, ff, ff, ff, ff, 0, ff, ff, 0),
		scsi.OpSynchronizeCache16: usage(sync, ff, 2, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, 0, 0),
		scsi.OpWriteSame10:        usage(same, ff, 0xf8, ff, ff, ff, ff, 0, ff, ff, 0),
		scsi.OpWriteSame16:        usage(same, ff, 0xf9, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, 0, 0),
		scsi.OpUnmap: {
			run: unmap, length: parameterLength, access: accessWrite, disk: true,
			usage: []byte{ff, 1, 0, 0, 0, 0, 0, ff, ff, 0},
		},
		scsi.OpCompareAndWrite: {
			run: compareAndWrite, length: compareLength, access: accessWrite, disk: true, blocks: true,
			usage: []byte{ff, rw, ff, ff, ff, ff, ff, ff, ff, ff, 0, 0, 0, ff, 0, 0},
		},

		scsi.OpPersistentReserveIn: {
			run: reserveIn, access: accessNone, disk: true,
			usage: []byte{ff, 0x1f, 0, 0, 0, 0, 0, ff, ff, 0},
		},
		scsi.OpPersistentReserveOut: {
			run: reserveOut, length: parameterLength, access: accessNone, disk: true,
			usage: []byte{ff, 0x1f, ff, 0, 0, ff, ff, ff, ff, 0},
		},
	}
}

// parameterLength is the length of a parameter list.
func parameterLength(q *request) int64 { return int64(q.Length) }

// cut shortens parameter data to the allocation length.
func (q *request) cut(b []byte) []byte { return b[:min(len(b), int(q.Length))] }
