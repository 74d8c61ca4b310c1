package conformance

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/initiator/scsi"
)

// Every combination of the parameters that data transfers depend on carries data
// both ways unharmed, and the target sees no rule broken.
func TestFFP_29_1_AllCombinations(t *testing.T) {
	crc, none := []initiator.Digest{initiator.DigestCRC32C}, []initiator.Digest(nil)
	bools := []bool{true, false}
	lengths := []int{512, 4096, 65536}
	for _, segment := range []int{512, 8192, 262144} {
		t.Run(fmt.Sprintf("MaxRecvDataSegmentLength=%d", segment), func(t *testing.T) {
			t.Parallel()
			srv := iscsitest.NewServer(iscsitest.Config{
				Targets: []iscsitest.Target{{Name: targetName, LUNs: map[uint64]*iscsitest.LUN{1: {Store: iscsitest.NewMemStore(4 << 20)}}}},
				Params:  iscsitest.Params{MaxRecvDataSegmentLength: uint32(segment), SeparateStatus: segment == 8192},
			})
			defer srv.Close()
			portal, err := initiator.ParsePortal(srv.Portal())
			if err != nil {
				t.Fatal(err)
			}
			seed := byte(0)
			for _, immediate := range bools {
				for _, initialR2T := range bools {
					for _, first := range lengths {
						for _, burst := range lengths {
							for _, digests := range [][2][]initiator.Digest{{none, none}, {crc, none}, {none, crc}, {crc, crc}} {
								cfg := initiator.Config{
									InitiatorName: initiatorName, Target: targetName, Portal: portal,
									Params: initiator.Params{
										NoImmediateData: !immediate, InitialR2T: initialR2T, FirstBurstLength: first, MaxBurstLength: burst,
										MaxRecvDataSegmentLength: segment, MaxOutstandingR2T: 1 + int(seed)%4,
										HeaderDigest: digests[0], DataDigest: digests[1],
									},
								}
								if err := verifyData(cfg, seed); err != nil {
									t.Fatalf("%+v: %v", cfg.Params, err)
								}
								seed++
							}
						}
					}
				}
			}
			for _, v := range srv.Violations() {
				t.Error(v)
			}
		})
	}
}

// verifyData writes and reads back lengths around all limits in one session.
func verifyData(cfg initiator.Config, seed byte) error {
	ctx := context.Background()
	s, err := initiator.Dial(ctx, cfg)
	if err != nil {
		return err
	}
	defer s.Close()
	n := s.Info().Negotiated
	if n.NoImmediateData != cfg.Params.NoImmediateData || n.InitialR2T != cfg.Params.InitialR2T ||
		n.FirstBurstLength != min(cfg.Params.FirstBurstLength, cfg.Params.MaxBurstLength) || n.MaxBurstLength != cfg.Params.MaxBurstLength {
		return fmt.Errorf("negotiated %+v", n)
	}
	for i, size := range []int{512, 4096, 4608, 66048} {
		lba := uint64(i * 256)
		w := writeTask(pattern(seed, size))
		scsi.Write16(&w.CDB, lba, uint32(size/blockSize), 0)
		r := readTask(size)
		scsi.Read16(&r.CDB, lba, uint32(size/blockSize), 0)
		for _, task := range []*initiator.Task{w, r} {
			if err := s.Do(ctx, task); err != nil {
				return fmt.Errorf("%d bytes: %w", size, err)
			}
			if err := good(task); err != nil {
				return fmt.Errorf("%d bytes: %w", size, err)
			}
		}
		if !bytes.Equal(r.DataIn, w.DataOut) {
			return fmt.Errorf("%d bytes came back changed", size)
		}
	}
	return s.Logout(ctx)
}
