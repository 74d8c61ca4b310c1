package conformance

import (
	"context"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/pdu"
)

// manage has the session carry out a task management function.
func manage(s *initiator.Session, fn pdu.TaskFunction, lun pdu.LUN) <-chan error {
	done := make(chan error, 1)
	go func() { done <- s.TaskManagement(context.Background(), fn, lun) }()
	return done
}
