package initiator

import (
	"context"

	"github.com/goiscsi/goiscsi/pdu"
)

// Connect logs in to a target and opens the disk with number lun: one call for
// the common case. Volume.Disconnect undoes it.
func Connect(ctx context.Context, cfg Config, lun uint64) (*Volume, error) {
	s, err := Dial(ctx, cfg)
	if err != nil {
		return nil, err
	}
	v, err := s.OpenVolume(ctx, pdu.LUNFromNumber(lun))
	if err != nil {
		// The session is of no use to anybody. An orderly logout is tried
		// even if ctx has ended; the session bounds it.
		_ = s.Logout(context.WithoutCancel(ctx))
		return nil, err
	}
	return v, nil
}
