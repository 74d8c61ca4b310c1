// Package errcode holds the exit codes of open-iscsi and their texts.
//
// Scripts match both the number and the text, so there is one table for the
// library's errors, the daemon's answers and the command's exit status.
package errcode

import (
	"errors"
	"fmt"
)

// Code is an exit status of iscsiadm as open-iscsi defines it (ISCSI_ERR_*).
type Code int

// The codes, with the meaning open-iscsi 2.1 gives them.
const (
	Success              Code = 0
	Err                  Code = 1
	SessNotFound         Code = 2
	NoMem                Code = 3
	Trans                Code = 4
	Login                Code = 5
	IDBM                 Code = 6
	Inval                Code = 7
	TransTimeout         Code = 8
	Internal             Code = 9
	Logout               Code = 10
	PDUTimeout           Code = 11
	TransNotFound        Code = 12
	Access               Code = 13
	TransCaps            Code = 14
	SessExists           Code = 15
	InvalidMgmtReq       Code = 16
	ISNSUnavailable      Code = 17
	ISCSIDComm           Code = 18
	FatalLogin           Code = 19
	ISCSIDNotConn        Code = 20
	NoObjsFound          Code = 21
	SysfsLookup          Code = 22
	HostNotFound         Code = 23
	LoginAuthFailed      Code = 24
	ISNSQuery            Code = 25
	ISNSRegFailed        Code = 26
	OpNotSupp            Code = 27
	Busy                 Code = 28
	Again                Code = 29
	UnknownDiscoveryType Code = 30
	ChildTerminated      Code = 31
	SessionNotConnected  Code = 32
	ReqTimedOut          Code = 33
)

type entry struct{ name, text string }

var table = [...]entry{
	Success:              {"SUCCESS", ""},
	Err:                  {"ERR", "unknown error"},
	SessNotFound:         {"ERR_SESS_NOT_FOUND", "session not found"},
	NoMem:                {"ERR_NOMEM", "no available memory"},
	Trans:                {"ERR_TRANS", "encountered connection failure"},
	Login:                {"ERR_LOGIN", "encountered iSCSI login failure"},
	IDBM:                 {"ERR_IDBM", "encountered iSCSI database failure"},
	Inval:                {"ERR_INVAL", "invalid parameter"},
	TransTimeout:         {"ERR_TRANS_TIMEOUT", "connection timed out"},
	Internal:             {"ERR_INTERNAL", "internal error"},
	Logout:               {"ERR_LOGOUT", "encountered iSCSI logout failure"},
	PDUTimeout:           {"ERR_PDU_TIMEOUT", "iSCSI PDU timed out"},
	TransNotFound:        {"ERR_TRANS_NOT_FOUND", "iSCSI driver not found. Please make sure it is loaded, and retry the operation"},
	Access:               {"ERR_ACCESS", "daemon access denied"},
	TransCaps:            {"ERR_TRANS_CAPS", "iSCSI driver does not support requested capability."},
	SessExists:           {"ERR_SESS_EXISTS", "session exists"},
	InvalidMgmtReq:       {"ERR_INVALID_MGMT_REQ", "Unknown request"},
	ISNSUnavailable:      {"ERR_ISNS_UNAVAILABLE", "iSNS service not supported"},
	ISCSIDComm:           {"ERR_ISCSID_COMM_ERR", "could not communicate to iscsid"},
	FatalLogin:           {"ERR_FATAL_LOGIN", "encountered non-retryable iSCSI login failure"},
	ISCSIDNotConn:        {"ERR_ISCSID_NOTCONN", "could not connect to iscsid"},
	NoObjsFound:          {"ERR_NO_OBJS_FOUND", "no objects found"},
	SysfsLookup:          {"ERR_SYSFS_LOOKUP", "sysfs lookup failure"},
	HostNotFound:         {"ERR_HOST_NOT_FOUND", "host not found"},
	LoginAuthFailed:      {"ERR_LOGIN_AUTH_FAILED", "iSCSI login failed due to authorization failure"},
	ISNSQuery:            {"ERR_ISNS_QUERY", "iSNS query failed"},
	ISNSRegFailed:        {"ERR_ISNS_REG_FAILED", "iSNS registration failed"},
	OpNotSupp:            {"ERR_OP_NOT_SUPP", "operation not supported"},
	Busy:                 {"ERR_BUSY", "device or resource in use"},
	Again:                {"ERR_AGAIN", "operation failed but retry may succeed"},
	UnknownDiscoveryType: {"ERR_UNKNOWN_DISCOVERY_TYPE", "unknown discovery type"},
	ChildTerminated:      {"ERR_CHILD_TERMINATED", "child process terminated"},
	SessionNotConnected:  {"ERR_SESSION_NOT_CONNECTED", "target likely not connected"},
	ReqTimedOut:          {"ERR_REQ_TIMEDOUT", "iscsid request timed out"},
}

// String returns open-iscsi's text for the code, as it stands in
// "initiator reported error (N - text)". Success has the empty text.
func (c Code) String() string {
	if c < 0 || int(c) >= len(table) {
		return fmt.Sprintf("unknown error %d", int(c))
	}
	return table[c].text
}

// Name returns the symbolic name without its ISCSI_ prefix, for example
// "ERR_SESS_EXISTS".
func (c Code) Name() string {
	if c < 0 || int(c) >= len(table) {
		return "ERR"
	}
	return table[c].name
}

// Coder is implemented by errors that know the code they end in.
type Coder interface {
	error
	ISCSICode() Code
}

// Of returns the code of the first error in err's tree that has one, Success
// for nil and Err where no error in the tree has a code.
func Of(err error) Code {
	if err == nil {
		return Success
	}
	var c Coder
	if errors.As(err, &c) {
		return c.ISCSICode()
	}
	return Err
}
