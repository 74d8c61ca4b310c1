package iscsitest_test

import (
	"io"
	"net"
	"testing"

	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/initiator/scsi"
	"github.com/goiscsi/goiscsi/pdu"
)

// FuzzServer sends the server anything, with and without a login before it.
// It must neither panic nor keep the connection's goroutine.
func FuzzServer(f *testing.F) {
	seed := func(pdus ...pdu.PDU) []byte {
		var b []byte
		for _, p := range pdus {
			var err error
			if b, err = p.AppendHeader(b); err != nil {
				f.Fatal(err)
			}
			b = append(b, p.Payload()...)
			b = append(b, make([]byte, -len(b)&3)...)
		}
		return b
	}
	write := &pdu.SCSICommand{Write: true, LUN: pdu.LUNFromNumber(1), InitiatorTaskTag: 1, ExpectedDataTransferLength: 1024, Data: make([]byte, 512)}
	scsi.Write10(&write.CDB, 0, 2, 0)
	read := &pdu.SCSICommand{Final: true, Read: true, LUN: pdu.LUNFromNumber(1), InitiatorTaskTag: 2, CmdSN: 1, ExpectedDataTransferLength: 36}
	scsi.Inquiry(&read.CDB, 36)
	f.Add(true, seed(write, &pdu.DataOut{Final: true, InitiatorTaskTag: 1, TargetTransferTag: pdu.ReservedTag, BufferOffset: 512, Data: make([]byte, 512)}))
	f.Add(true, seed(read, &pdu.TaskManagementRequest{Function: pdu.TaskLogicalUnitReset, CmdSN: 2, LUN: pdu.LUNFromNumber(1)}))
	f.Add(true, seed(&pdu.TextRequest{Final: true, TargetTransferTag: pdu.ReservedTag, Data: []byte("SendTargets=All\x00")}, &pdu.LogoutRequest{CmdSN: 1}))
	f.Add(true, seed(&pdu.NOPOut{InitiatorTaskTag: 5, TargetTransferTag: pdu.ReservedTag, Data: []byte("ping")}))
	f.Add(true, seed(&pdu.LogoutRequest{Immediate: true, Reason: pdu.LogoutRecovery, CID: 1}, &pdu.TaskManagementRequest{Immediate: true, Function: pdu.TaskReassign, ReferencedTaskTag: 1}))
	f.Add(false, seed(&pdu.LoginRequest{Data: []byte("InitiatorName=a\x00SessionType=Discovery\x00AuthMethod=CHAP,None\x00")}))
	f.Fuzz(func(t *testing.T, loggedIn bool, stream []byte) {
		for _, level := range []uint32{0, 2} {
			receive(t, level, loggedIn, stream)
		}
	})
}

// receive has a server of an error recovery level receive anything.
func receive(t *testing.T, level uint32, loggedIn bool, stream []byte) {
	srv := iscsitest.NewUnstartedServer(iscsitest.Config{
		Targets: []iscsitest.Target{{Name: target, LUNs: map[uint64]*iscsitest.LUN{1: {Store: iscsitest.NewMemStore(1 << 20), Thin: true}}}},
		Params:  iscsitest.Params{ErrorRecoveryLevel: level, MaxConnections: 1 + level},
	})
	a, b := net.Pipe()
	done := make(chan error)
	go func() { done <- srv.ServeConn(b) }()
	if loggedIn {
		c := &client{t: t, nc: a, r: pdu.NewReader(a, 0), w: pdu.NewWriter(a), name: initiator, session: target}
		c.login(kv("InitialR2T", "No"), kv("ErrorRecoveryLevel", pdu.FormatNumber(uint64(level))))
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		_, _ = io.Copy(io.Discard, a)
	}()
	_, _ = a.Write(stream) // the server may have had enough before the end
	a.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	<-drained
	srv.Close()
}
