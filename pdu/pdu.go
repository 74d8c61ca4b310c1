package pdu

// A PDU is one of the PDU types of this package. The set is closed: the
// interface has an unexported method.
type PDU interface {
	// Opcode returns the opcode of the type.
	Opcode() Opcode
	// AppendHeader appends the basic header segment and the additional
	// header segments, if any, to dst and returns the extended slice.
	// Digests and the data segment are not appended; DataSegmentLength is
	// that of Payload. The error is a *FormatError for a value that
	// does not fit the wire.
	AppendHeader(dst []byte) ([]byte, error)
	// Payload returns the data segment without padding, nil when the PDU
	// has none. It aliases the Data field.
	Payload() []byte
	// Decode overwrites the value with the PDU that h begins. data is its
	// data segment without padding and is aliased. A nil data leaves
	// the data segment out of account, for users that read it elsewhere.
	// The error is a *FormatError; the value is then undefined.
	Decode(h *Header, data []byte) error

	sealed()
}

// New returns a zero PDU of the type that op stands for, nil when the opcode
// is not known.
func New(op Opcode) PDU {
	switch op {
	case OpNOPOut:
		return new(NOPOut)
	case OpSCSICommand:
		return new(SCSICommand)
	case OpTaskManagementRequest:
		return new(TaskManagementRequest)
	case OpLoginRequest:
		return new(LoginRequest)
	case OpTextRequest:
		return new(TextRequest)
	case OpDataOut:
		return new(DataOut)
	case OpLogoutRequest:
		return new(LogoutRequest)
	case OpSNACK:
		return new(SNACK)
	case OpNOPIn:
		return new(NOPIn)
	case OpSCSIResponse:
		return new(SCSIResponse)
	case OpTaskManagementResponse:
		return new(TaskManagementResponse)
	case OpLoginResponse:
		return new(LoginResponse)
	case OpTextResponse:
		return new(TextResponse)
	case OpDataIn:
		return new(DataIn)
	case OpLogoutResponse:
		return new(LogoutResponse)
	case OpR2T:
		return new(R2T)
	case OpAsyncMessage:
		return new(AsyncMessage)
	case OpReject:
		return new(Reject)
	}
	return nil
}

// Parse allocates a PDU of the type that h begins and decodes it. It is the
// slow path, for PDUs that are rare and for tests; a connection keeps one
// value of each frequent type and calls Decode. The error is a *FormatError,
// also for an opcode that is not known.
func Parse(h *Header, data []byte) (PDU, error) {
	p := New(h.Opcode())
	if p == nil {
		return nil, formatErr(h.Opcode(), "Opcode", "unassigned")
	}
	if err := p.Decode(h, data); err != nil {
		return nil, err
	}
	return p, nil
}
