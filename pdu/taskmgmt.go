package pdu

import (
	"encoding/binary"
	"fmt"
)

// A TaskFunction is a task management function (RFC 7143 section 11.5.1; 9 to
// 12 are from RFC 7144).
type TaskFunction uint8

// Task management functions.
const (
	TaskAbortTask        TaskFunction = 1
	TaskAbortTaskSet     TaskFunction = 2
	TaskClearACA         TaskFunction = 3
	TaskClearTaskSet     TaskFunction = 4
	TaskLogicalUnitReset TaskFunction = 5
	TaskTargetWarmReset  TaskFunction = 6
	TaskTargetColdReset  TaskFunction = 7
	TaskReassign         TaskFunction = 8
	TaskQueryTask        TaskFunction = 9
	TaskQueryTaskSet     TaskFunction = 10
	TaskITNexusReset     TaskFunction = 11
	TaskQueryAsyncEvent  TaskFunction = 12
)

// String returns the function's name in lower case.
func (f TaskFunction) String() string {
	names := [...]string{
		"", "abort task", "abort task set", "clear aca", "clear task set",
		"logical unit reset", "target warm reset", "target cold reset", "task reassign",
		"query task", "query task set", "i_t nexus reset", "query asynchronous event",
	}
	if f > 0 && int(f) < len(names) {
		return names[f]
	}
	return fmt.Sprintf("task management function %d", uint8(f))
}

// A TaskResponse is the outcome of a task management function (RFC 7143
// section 11.6.1; 7 is from RFC 7144).
type TaskResponse uint8

// Task management responses.
const (
	TaskFunctionComplete     TaskResponse = 0
	TaskDoesNotExist         TaskResponse = 1
	TaskLUNDoesNotExist      TaskResponse = 2
	TaskStillAllegiant       TaskResponse = 3
	TaskReassignNotSupported TaskResponse = 4
	TaskFunctionNotSupported TaskResponse = 5
	TaskAuthorizationFailed  TaskResponse = 6
	TaskFunctionSucceeded    TaskResponse = 7
	TaskFunctionRejected     TaskResponse = 255
)

const taskFunctionMask = 0x7f

// String returns the response in words.
func (r TaskResponse) String() string {
	names := [...]string{
		"function complete", "task does not exist", "lun does not exist",
		"task still allegiant", "task allegiance reassignment not supported",
		"task management function not supported", "function authorization failed",
		"function succeeded",
	}
	switch {
	case int(r) < len(names):
		return names[r]
	case r == TaskFunctionRejected:
		return "function rejected"
	}
	return fmt.Sprintf("task management response %d", uint8(r))
}

// A TaskManagementRequest asks the target to act on tasks (RFC 7143 section
// 11.5).
type TaskManagementRequest struct {
	// Immediate is the I bit.
	Immediate bool
	Function  TaskFunction
	// LUN is used by the functions that address a logical unit.
	LUN              LUN
	InitiatorTaskTag uint32
	// ReferencedTaskTag is the initiator task tag of the task to abort or
	// reassign, otherwise ReservedTag.
	ReferencedTaskTag uint32
	CmdSN             uint32
	ExpStatSN         uint32
	// RefCmdSN is the CmdSN of the task to abort.
	RefCmdSN uint32
	// ExpDataSN is used by TaskReassign.
	ExpDataSN uint32
}

var _ PDU = (*TaskManagementRequest)(nil)

// Opcode returns OpTaskManagementRequest.
func (*TaskManagementRequest) Opcode() Opcode { return OpTaskManagementRequest }

// Payload returns nil.
func (*TaskManagementRequest) Payload() []byte { return nil }

// AppendHeader implements PDU.
func (p *TaskManagementRequest) AppendHeader(dst []byte) ([]byte, error) {
	dst, b, err := appendBHS(dst, OpTaskManagementRequest, nil)
	if err != nil {
		return dst, err
	}
	b[0] |= bit(p.Immediate, flagImmediate)
	b[1] = flagFinal | byte(p.Function)&taskFunctionMask
	binary.BigEndian.PutUint64(b[8:], uint64(p.LUN))
	binary.BigEndian.PutUint32(b[16:], p.InitiatorTaskTag)
	binary.BigEndian.PutUint32(b[20:], p.ReferencedTaskTag)
	binary.BigEndian.PutUint32(b[24:], p.CmdSN)
	binary.BigEndian.PutUint32(b[28:], p.ExpStatSN)
	binary.BigEndian.PutUint32(b[32:], p.RefCmdSN)
	binary.BigEndian.PutUint32(b[36:], p.ExpDataSN)
	return dst, nil
}

// Decode implements PDU.
func (p *TaskManagementRequest) Decode(h *Header, data []byte) error {
	if err := h.checkNoData(OpTaskManagementRequest, data); err != nil {
		return err
	}
	*p = TaskManagementRequest{
		Immediate:         h.Immediate(),
		Function:          TaskFunction(h.BHS[1] & taskFunctionMask),
		LUN:               h.LUN(),
		InitiatorTaskTag:  h.InitiatorTaskTag(),
		ReferencedTaskTag: h.u32(20),
		CmdSN:             h.CmdSN(),
		ExpStatSN:         h.ExpStatSN(),
		RefCmdSN:          h.u32(32),
		ExpDataSN:         h.u32(36),
	}
	return nil
}

func (*TaskManagementRequest) sealed() {}

// A TaskManagementResponse answers a TaskManagementRequest (RFC 7143 section
// 11.6).
type TaskManagementResponse struct {
	Response         TaskResponse
	InitiatorTaskTag uint32
	StatSN           uint32
	ExpCmdSN         uint32
	MaxCmdSN         uint32
}

var _ PDU = (*TaskManagementResponse)(nil)

// Opcode returns OpTaskManagementResponse.
func (*TaskManagementResponse) Opcode() Opcode { return OpTaskManagementResponse }

// Payload returns nil.
func (*TaskManagementResponse) Payload() []byte { return nil }

// AppendHeader implements PDU.
func (p *TaskManagementResponse) AppendHeader(dst []byte) ([]byte, error) {
	dst, b, err := appendBHS(dst, OpTaskManagementResponse, nil)
	if err != nil {
		return dst, err
	}
	b[1] = flagFinal
	b[2] = byte(p.Response)
	binary.BigEndian.PutUint32(b[16:], p.InitiatorTaskTag)
	putSerials(b, p.StatSN, p.ExpCmdSN, p.MaxCmdSN)
	return dst, nil
}

// Decode implements PDU.
func (p *TaskManagementResponse) Decode(h *Header, data []byte) error {
	if err := h.checkNoData(OpTaskManagementResponse, data); err != nil {
		return err
	}
	*p = TaskManagementResponse{
		Response:         TaskResponse(h.BHS[2]),
		InitiatorTaskTag: h.InitiatorTaskTag(),
		StatSN:           h.StatSN(),
		ExpCmdSN:         h.ExpCmdSN(),
		MaxCmdSN:         h.MaxCmdSN(),
	}
	return nil
}

func (*TaskManagementResponse) sealed() {}
