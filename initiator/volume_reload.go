package initiator

import (
	"context"

	"github.com/goiscsi/goiscsi/initiator/scsi"
)

// Refresh asks the device again who it is, how large and whether it may be
// written, and waits for the answers. I/O waits meanwhile, and fails from then
// on if it is another device. It is for callers who have reason to think that
// something changed, such as a session that had to log in again.
func (v *Volume) Refresh(ctx context.Context) error {
	v.mu.Lock()
	err := v.broken
	if v.closed {
		err = ErrVolumeClosed
	}
	if err != nil {
		v.mu.Unlock()
		return v.wrap("refresh", err)
	}
	v.note(attnReplaced, scsi.Sense{})
	if err := v.unlockAndAwait(ctx); err != nil {
		return v.wrap("refresh", err)
	}
	return nil
}
