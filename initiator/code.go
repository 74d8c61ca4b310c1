package initiator

import "github.com/goiscsi/goiscsi/internal/errcode"

// A Code is an exit status of open-iscsi's iscsiadm, 0 to 33, which scripts and
// other programs know: 15 for a session that exists, 24 for refused credentials.
// String returns open-iscsi's text, Name its symbol, such as "ERR_SESS_EXISTS".
//
// An error of any program takes part by a method ISCSICode() Code.
type Code = errcode.Code

// The codes that errors of this module have. docs/library.md in the repository
// says when.
const (
	CodeSuccess          Code = errcode.Success         // 0
	CodeUnknown          Code = errcode.Err             // 1: nothing finer is known
	CodeSessionNotFound  Code = errcode.SessNotFound    // 2
	CodeTransport        Code = errcode.Trans           // 4: the connection failed
	CodeLogin            Code = errcode.Login           // 5: refused, a later login may succeed
	CodeDatabase         Code = errcode.IDBM            // 6: the node database
	CodeInvalid          Code = errcode.Inval           // 7: a name, portal or value that makes no sense
	CodeTransportTimeout Code = errcode.TransTimeout    // 8: the portal cannot be reached
	CodeLogout           Code = errcode.Logout          // 10
	CodePDUTimeout       Code = errcode.PDUTimeout      // 11: no answer in time
	CodeNoDriver         Code = errcode.TransNotFound   // 12: the kernel has no nbd
	CodeAccess           Code = errcode.Access          // 13: the daemon does not let us
	CodeSessionExists    Code = errcode.SessExists      // 15
	CodeWrongVersion     Code = errcode.InvalidMgmtReq  // 16: client and daemon do not fit
	CodeDaemon           Code = errcode.ISCSIDComm      // 18: talking to the daemon failed
	CodeFatalLogin       Code = errcode.FatalLogin      // 19: refused for good
	CodeNoDaemon         Code = errcode.ISCSIDNotConn   // 20: no daemon
	CodeNotFound         Code = errcode.NoObjsFound     // 21: no such record, session or portal
	CodeAuth             Code = errcode.LoginAuthFailed // 24
	CodeISNSQuery        Code = errcode.ISNSQuery       // 25
	CodeUnsupported      Code = errcode.OpNotSupp       // 27
	CodeBusy             Code = errcode.Busy            // 28: the device is in use
	CodeDaemonTimeout    Code = errcode.ReqTimedOut     // 33: the daemon does not answer
)

// ErrorCode returns the code that iscsiadm would exit with after err: that of the
// first error in its tree that has one, CodeSuccess for nil and CodeUnknown
// where none has. It knows the errors of all packages of this module.
func ErrorCode(err error) Code { return errcode.Of(err) }
