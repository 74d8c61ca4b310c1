//go:build guest

package kernel

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/initiator/scsi"
	"github.com/goiscsi/goiscsi/pdu"
	"github.com/goiscsi/goiscsi/test/lab"
	"github.com/goiscsi/goiscsi/test/targets"
)

// What the library offers beyond reading and writing, on targets that are not
// ours.

// TestLibraryOnLIO uses the kernel's target.
func TestLibraryOnLIO(t *testing.T) {
	l := targets.StartLIO(t, lioPortals, targets.Target{Name: lioTarget, LUNs: []targets.LUN{{Number: 1, Path: targets.SparseFile(t, 16<<20)}}})
	l.Attrib(1, "emulate_tpu", "1")
	l.Attrib(1, "emulate_tpws", "1")
	useLibrary(t, lioPortals[0], lioTarget)
}

// TestLibraryOnTGT uses tgt.
func TestLibraryOnTGT(t *testing.T) {
	tgt := targets.StartTGT(t, 0, nil, targets.Target{Name: tutorialTarget, LUNs: []targets.LUN{{Number: 1, Path: targets.SparseFile(t, 16<<20)}}})
	if out, err := tgt.Adm("--op", "update", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "--params", "thin_provisioning=1"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	useLibrary(t, tgt.Portal(), tutorialTarget)
}

func useLibrary(t *testing.T, at targets.PortalAddr, target string) {
	if lab.Reference() {
		t.Skip("there is no such library")
	}
	portal, err := initiator.ParsePortal(at.String())
	if err != nil {
		t.Fatal(err)
	}
	connect := func(name string) *initiator.Volume {
		t.Helper()
		v, err := initiator.Connect(t.Context(), initiator.Target{
			Name: target, Portals: []initiator.Portal{portal}, LUN: 1, InitiatorName: lab.InitiatorName + name,
		})
		if err != nil {
			t.Fatal(err)
		}
		// Not t.Context: it has ended by then.
		t.Cleanup(func() { _ = v.Disconnect(context.Background()) })
		return v
	}
	a, b := connect("-a"), connect("-b")
	t.Run("pages", func(t *testing.T) { checkPages(t, a) })
	t.Run("discard and zeroes", func(t *testing.T) { discardAndZero(t, a) })
	t.Run("compare and write", func(t *testing.T) { compareAndWrite(t, a, b) })
	t.Run("reservations", func(t *testing.T) { reserve(t, a, b) })
	t.Run("raw command", func(t *testing.T) { rawCommand(t, a) })
}

// checkPages wants to know the disk, and a target that is the same to both.
func checkPages(t *testing.T, v *initiator.Volume) {
	f := v.Features()
	if v.Size() != 16<<20 || v.BlockSize() != 512 || v.Identity().IsZero() {
		t.Errorf("size %d, blocks of %d, identity %v", v.Size(), v.BlockSize(), v.Identity())
	}
	if !f.Discard || f.ReadOnly {
		t.Errorf("features %+v", f)
	}
}

// discardAndZero has the target drop a range and zero another, and nothing
// around them.
func discardAndZero(t *testing.T, v *initiator.Volume) {
	ctx := t.Context()
	const size = 1 << 20
	want := bytes.Repeat([]byte{0x5a}, size)
	if _, err := v.WriteAt(ctx, want, 0); err != nil {
		t.Fatal(err)
	}
	if err := v.Discard(ctx, 256<<10, 128<<10); err != nil {
		t.Fatal(err)
	}
	if err := v.WriteZeroes(ctx, 640<<10+512, 64<<10); err != nil {
		t.Fatal(err)
	}
	if err := v.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, size)
	if _, err := v.ReadAt(ctx, got, 0); err != nil {
		t.Fatal(err)
	}
	clear(want[640<<10+512 : 704<<10+512])
	if hole := got[256<<10 : 384<<10]; v.Features().DiscardReadsZero {
		clear(want[256<<10 : 384<<10])
	} else {
		copy(want[256<<10:], hole) // whatever it is
	}
	if !bytes.Equal(got, want) {
		t.Error("the disk is not what was written, discarded and zeroed")
	}
}

// compareAndWrite takes a lock as cluster file systems do.
func compareAndWrite(t *testing.T, a, b *initiator.Volume) {
	const at = 2 << 20
	free, mine, theirs := make([]byte, 512), bytes.Repeat([]byte{0xa}, 512), bytes.Repeat([]byte{0xb}, 512)
	err := a.CompareAndWrite(t.Context(), at, free, mine)
	if errors.Is(err, initiator.ErrUnsupported) && a.Features().MaxCompareAndWrite == 0 {
		t.Log("the target has no such command, and the volume knows it now")
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := b.CompareAndWrite(t.Context(), at, free, theirs); !errors.Is(err, initiator.ErrMiscompare) {
		t.Errorf("a lock that is taken: %v", err)
	}
	if err := a.CompareAndWrite(t.Context(), at, mine, free); err != nil {
		t.Errorf("release: %v", err)
	}
	if err := b.CompareAndWrite(t.Context(), at, free, theirs); err != nil {
		t.Errorf("a lock that is free again: %v", err)
	}
}

// reserve is what a cluster does to fence a node off.
func reserve(t *testing.T, a, b *initiator.Volume) {
	ctx := t.Context()
	const keyA, keyB = initiator.ReservationKey(0xa), initiator.ReservationKey(0xb)
	typ := scsi.WriteExclusiveRegistrantsOnly
	block := make([]byte, 512)
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	conflict := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, initiator.ErrReservationConflict) {
			t.Errorf("%s: %v, want a conflict", what, err)
		}
	}
	must("register", a.Reservations().Register(ctx, 0, keyA, initiator.RegisterOptions{}))
	must("reserve", a.Reservations().Reserve(ctx, keyA, typ))
	_, err := b.WriteAt(ctx, block, 0)
	conflict("write by another", err)
	_, err = b.ReadAt(ctx, block, 0)
	must("read by another", err)
	must("register the other", b.Reservations().Register(ctx, 0, keyB, initiator.RegisterOptions{}))
	_, err = b.WriteAt(ctx, block, 0)
	must("write by a registrant", err)
	keys, err := b.Reservations().Keys(ctx)
	if slices.Sort(keys); err != nil || !slices.Equal(keys, []initiator.ReservationKey{keyA, keyB}) {
		t.Errorf("keys %v, %v", keys, err)
	}
	if holder, err := b.Reservations().Holder(ctx); err != nil || !holder.Held || holder.Key != uint64(keyA) || holder.Type != typ {
		t.Errorf("holder %+v, %v", holder, err)
	}
	err = b.Reservations().Preempt(ctx, keyB, keyA, typ, true)
	if errors.Is(err, initiator.ErrUnsupported) { // tgt does not abort
		err = b.Reservations().Preempt(ctx, keyB, keyA, typ, false)
	}
	must("preempt", err)
	_, err = a.WriteAt(ctx, block, 0)
	conflict("write by the one fenced off", err)
	must("release", b.Reservations().Release(ctx, keyB, typ))
	must("clear", b.Reservations().Clear(ctx, keyB))
	_, err = a.WriteAt(ctx, block, 0)
	must("write when all is over", err)
}

// rawCommand sends a command that the library has no method for.
func rawCommand(t *testing.T, v *initiator.Volume) {
	task := &initiator.Task{DataIn: make([]byte, scsi.Capacity10Length)}
	scsi.ReadCapacity10(&task.CDB)
	if err := v.Do(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	c, err := scsi.ParseCapacity10(task.DataIn)
	if err != nil || c.Blocks() != 16<<20/512 {
		t.Errorf("capacity %+v, %v", c, err)
	}
	task = &initiator.Task{LUN: pdu.LUNFromNumber(1), CDB: scsi.CDB{0xff}}
	err = v.Do(t.Context(), task)
	var se *scsi.StatusError
	if !errors.As(err, &se) || se.Sense.Key != scsi.KeyIllegalRequest {
		t.Errorf("a command that no target has: %v", err)
	}
}
