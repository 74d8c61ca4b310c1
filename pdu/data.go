package pdu

import "encoding/binary"

const (
	flagAcknowledge = 0x40
	flagStatus      = 0x01
)

// A DataOut carries data of a write to the target (RFC 7143 section 11.7).
type DataOut struct {
	// Final is the F bit: the last PDU of unsolicited data, or of the
	// sequence that answers an R2T.
	Final bool
	// LUN is that of the R2T; it is reserved in unsolicited data.
	LUN              LUN
	InitiatorTaskTag uint32
	// TargetTransferTag is that of the R2T, ReservedTag in unsolicited data.
	TargetTransferTag uint32
	ExpStatSN         uint32
	// DataSN counts the PDUs of the sequence from 0.
	DataSN uint32
	// BufferOffset is the place of Data in the transfer, in bytes.
	BufferOffset uint32
	Data         []byte
}

var _ PDU = (*DataOut)(nil)

// Opcode returns OpDataOut.
func (*DataOut) Opcode() Opcode { return OpDataOut }

// Payload returns Data.
func (p *DataOut) Payload() []byte { return p.Data }

// AppendHeader implements PDU.
func (p *DataOut) AppendHeader(dst []byte) ([]byte, error) {
	dst, b, err := appendBHS(dst, OpDataOut, p.Data)
	if err != nil {
		return dst, err
	}
	b[1] = bit(p.Final, flagFinal)
	binary.BigEndian.PutUint64(b[8:], uint64(p.LUN))
	binary.BigEndian.PutUint32(b[16:], p.InitiatorTaskTag)
	binary.BigEndian.PutUint32(b[20:], p.TargetTransferTag)
	binary.BigEndian.PutUint32(b[28:], p.ExpStatSN)
	binary.BigEndian.PutUint32(b[36:], p.DataSN)
	binary.BigEndian.PutUint32(b[40:], p.BufferOffset)
	return dst, nil
}

// Decode implements PDU.
func (p *DataOut) Decode(h *Header, data []byte) error {
	if err := h.check(OpDataOut, data); err != nil {
		return err
	}
	*p = DataOut{
		Final:             h.Final(),
		LUN:               h.LUN(),
		InitiatorTaskTag:  h.InitiatorTaskTag(),
		TargetTransferTag: h.TargetTransferTag(),
		ExpStatSN:         h.ExpStatSN(),
		DataSN:            h.u32(36),
		BufferOffset:      h.u32(40),
		Data:              data,
	}
	return nil
}

func (*DataOut) sealed() {}

// A DataIn carries data of a read to the initiator, the last one perhaps with
// the status of the command (RFC 7143 section 11.7).
type DataIn struct {
	// Final is the F bit: the last PDU of a sequence.
	Final bool
	// Acknowledge is the A bit: the target asks for a SNACK of type DataACK.
	Acknowledge bool
	// Overflow and Underflow are the flags O and U; they mean something
	// only with HasStatus.
	Overflow, Underflow bool
	// HasStatus is the S bit: Status, StatSN and ResidualCount are valid,
	// and no SCSIResponse follows.
	HasStatus bool
	// Status is the SCSI status, never CHECK CONDITION.
	Status uint8
	// LUN and TargetTransferTag are valid with Acknowledge.
	LUN               LUN
	InitiatorTaskTag  uint32
	TargetTransferTag uint32
	StatSN            uint32
	ExpCmdSN          uint32
	MaxCmdSN          uint32
	// DataSN counts the input PDUs of the command from 0.
	DataSN uint32
	// BufferOffset is the place of Data in the transfer, in bytes.
	BufferOffset  uint32
	ResidualCount uint32
	Data          []byte
}

var _ PDU = (*DataIn)(nil)

// Opcode returns OpDataIn.
func (*DataIn) Opcode() Opcode { return OpDataIn }

// Payload returns Data.
func (p *DataIn) Payload() []byte { return p.Data }

// AppendHeader implements PDU.
func (p *DataIn) AppendHeader(dst []byte) ([]byte, error) {
	dst, b, err := appendBHS(dst, OpDataIn, p.Data)
	if err != nil {
		return dst, err
	}
	b[1] = bit(p.Final, flagFinal) | bit(p.Acknowledge, flagAcknowledge) |
		bit(p.Overflow, flagOverflow) | bit(p.Underflow, flagUnderflow) | bit(p.HasStatus, flagStatus)
	b[3] = p.Status
	binary.BigEndian.PutUint64(b[8:], uint64(p.LUN))
	binary.BigEndian.PutUint32(b[16:], p.InitiatorTaskTag)
	binary.BigEndian.PutUint32(b[20:], p.TargetTransferTag)
	putSerials(b, p.StatSN, p.ExpCmdSN, p.MaxCmdSN)
	binary.BigEndian.PutUint32(b[36:], p.DataSN)
	binary.BigEndian.PutUint32(b[40:], p.BufferOffset)
	binary.BigEndian.PutUint32(b[44:], p.ResidualCount)
	return dst, nil
}

// Decode implements PDU.
func (p *DataIn) Decode(h *Header, data []byte) error {
	if err := h.check(OpDataIn, data); err != nil {
		return err
	}
	f := h.BHS[1]
	*p = DataIn{
		Final:             h.Final(),
		Acknowledge:       f&flagAcknowledge != 0,
		Overflow:          f&flagOverflow != 0,
		Underflow:         f&flagUnderflow != 0,
		HasStatus:         f&flagStatus != 0,
		Status:            h.BHS[3],
		LUN:               h.LUN(),
		InitiatorTaskTag:  h.InitiatorTaskTag(),
		TargetTransferTag: h.TargetTransferTag(),
		StatSN:            h.StatSN(),
		ExpCmdSN:          h.ExpCmdSN(),
		MaxCmdSN:          h.MaxCmdSN(),
		DataSN:            h.u32(36),
		BufferOffset:      h.u32(40),
		ResidualCount:     h.u32(44),
		Data:              data,
	}
	switch {
	case p.HasStatus && !p.Final:
		return formatErr(OpDataIn, "S", "is set without F")
	case p.HasStatus && p.Overflow && p.Underflow:
		return formatErr(OpDataIn, "O, U", "both are set")
	}
	return nil
}

func (*DataIn) sealed() {}
