package initiator

import (
	"context"
	"log/slog"
	"net"
)

// A DiscoveryConfig says which portal to ask for its targets, and how. Its
// fields are like those of Config.
type DiscoveryConfig struct {
	// InitiatorName is our iSCSI name. Required.
	InitiatorName  string
	InitiatorAlias string

	// Portal is the portal to ask. Required.
	Portal Portal

	CHAP CHAP

	// Params: only the digests and MaxRecvDataSegmentLength matter.
	Params Params

	// Timeouts: only Login, Auth and Logout matter.
	Timeouts Timeouts

	// Retries is how many more attempts follow a failed connection or a
	// temporary refusal (discovery.sendtargets.reopen_max). Zero means none.
	Retries int

	TCP  TCP
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// Logger receives what is worth an administrator's attention. Nil means no
	// logging.
	Logger *slog.Logger

	// OnSkip is called for every record of the answer that was left out
	// because its name or address is not valid. Nil means nobody is interested;
	// such records are logged as well.
	OnSkip func(SkippedRecord)
}

// A SkippedRecord is a target or address in the answer to SendTargets that
// cannot be used. Its texts come from the wire and may hold any character.
type SkippedRecord struct {
	Target  string
	Address string // empty if the name is what is wrong
	Err     error
}

// A DiscoveredPortal is one address of one target.
type DiscoveredPortal struct {
	Target string
	Portal Portal
}

// Discover asks a portal for all targets that it offers us (SendTargets=All, RFC
// 7143 appendix C) and returns their portals in the order of the answer. Records
// with an invalid name or address are skipped and reported to OnSkip.
func Discover(ctx context.Context, cfg DiscoveryConfig) ([]DiscoveredPortal, error) {
	panic("being written")
}
