package iscsitest_test

import (
	"testing"

	"github.com/goiscsi/goiscsi/initiator/iscsitest"
)

// MaxConnections beyond the protocol's is refused.
func TestMaxConnectionsRange(t *testing.T) {
	if _, err := iscsitest.New(iscsitest.Config{Params: iscsitest.Params{MaxConnections: 65536}}); err == nil {
		t.Error("65536 connections are taken")
	}
}
