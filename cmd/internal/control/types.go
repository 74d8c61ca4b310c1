package control

import (
	"github.com/goiscsi/goiscsi/initiator/manager"
)

// What travels is public, so that any program can talk to iscsid: it is in
// package manager, with the client. The names here are the same types.
type (
	// LoginRequest is manager.LoginRequest.
	LoginRequest = manager.LoginRequest
	// Portal is manager.Portal.
	Portal = manager.Portal
	// Iface is manager.Iface.
	Iface = manager.Iface
	// Timeouts is manager.Timeouts.
	Timeouts = manager.Timeouts
	// CHAP is manager.CHAP.
	CHAP = manager.CHAP
	// Negotiated is manager.Negotiated.
	Negotiated = manager.Negotiated
	// Device is manager.Device.
	Device = manager.Device
	// Session is manager.Session.
	Session = manager.Session
	// Scan is manager.Scan.
	Scan = manager.Scan
	// SessionQuery is manager.SessionQuery.
	SessionQuery = manager.SessionQuery
	// RescanResult is manager.RescanResult.
	RescanResult = manager.RescanResult
	// Initiator is manager.Initiator.
	Initiator = manager.Initiator
	// VersionInfo is manager.VersionInfo.
	VersionInfo = manager.VersionInfo
	// Stats is manager.Stats.
	Stats = manager.Stats
	// LUNStats is manager.LUNStats.
	LUNStats = manager.LUNStats
	// OpStats is manager.OpStats.
	OpStats = manager.OpStats
	// Bin is manager.Bin.
	Bin = manager.Bin
	// LogLevel is manager.LogLevel.
	LogLevel = manager.LogLevel
	// TraceOptions is manager.TraceOptions.
	TraceOptions = manager.TraceOptions
	// TraceResult is manager.TraceResult.
	TraceResult = manager.TraceResult
	// Error is manager.Error.
	Error = manager.Error
	// ConnError is manager.ConnError.
	ConnError = manager.ConnError
	// VersionError is manager.VersionError.
	VersionError = manager.VersionError
	// Client is manager.Client.
	Client = manager.Client
	// ClientOptions is manager.ClientOptions.
	ClientOptions = manager.ClientOptions
)

// The constants of package manager, which has them documented.
const (
	APIMin = manager.APIMin
	APIMax = manager.APIMax

	AttachNBD    = manager.AttachNBD
	AttachSocket = manager.AttachSocket
	AttachNone   = manager.AttachNone

	ConnLoggedIn     = manager.ConnLoggedIn
	SessionLoggedIn  = manager.SessionLoggedIn
	InternalNoChange = manager.InternalNoChange
)

// NewClient is manager.NewClient for iscsiadm.
func NewClient(socket string, o ClientOptions) *Client {
	o.Program = "iscsiadm"
	return manager.NewClient(socket, o)
}

// IsNotRunning is manager.IsNotRunning.
func IsNotRunning(err error) bool { return manager.IsNotRunning(err) }
