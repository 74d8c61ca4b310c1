//go:build integration

package matrix

import (
	"errors"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/test/targets"
)

func TestTGT(t *testing.T) {
	file := targets.SparseFile(t, diskSize)
	tgt := targets.StartTGT(t, 0, nil, targets.Target{Name: targetName, LUNs: []targets.LUN{{Number: 1, Path: file}}})
	allow(t, tgt)
	s := &subject{portal: tgt.Portal(), lun: 1, file: file}
	s.run(t, 0, 1)
}

// allow has a tgtd take what is offered: by itself it has InitialR2T and no
// digests.
func allow(t *testing.T, tgt *targets.TGT) {
	t.Helper()
	for _, kv := range [][2]string{{"InitialR2T", "No"}, {"HeaderDigest", "CRC32C,None"}, {"DataDigest", "CRC32C,None"}} {
		if out, err := tgt.Adm("--op", "update", "--mode", "target", "--tid", "1", "-n", kv[0], "-v", kv[1]); err != nil {
			t.Fatalf("%s: %v\n%s", kv[0], err, out)
		}
	}
}

// TestDigestsThatTGTDoesNotHave wants a login that fails to say why: tgt, as it
// is, answers None to an offer of CRC32C alone, which RFC 7143 section 6.2.1
// forbids, and a session without the digest was not asked for.
func TestDigestsThatTGTDoesNotHave(t *testing.T) {
	file := targets.SparseFile(t, diskSize)
	tgt := targets.StartTGT(t, 0, nil, targets.Target{Name: targetName, LUNs: []targets.LUN{{Number: 1, Path: file}}})
	portal := tgt.Portal()
	_, err := initiator.Dial(t.Context(), initiator.Config{
		InitiatorName: "iqn.2001-04.com.example:client",
		Target:        targetName,
		Portal:        initiator.Portal{Host: portal.Host, Port: uint16(portal.Port), TPGT: initiator.UnknownTPGT},
		Params:        initiator.Params{HeaderDigest: crc32c},
	})
	const want = `HeaderDigest: we offered "CRC32C", the target answered "None", which was not offered; offer "None" as well`
	if !errors.Is(err, initiator.ErrProtocol) || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v", err)
	}
}

// TestISTGT shares the combinations out among several: istgt takes a second for
// each login, all of it asleep.
func TestISTGT(t *testing.T) {
	const lanes = 8
	var wg sync.WaitGroup
	for lane := range lanes {
		wg.Go(func() { // not t.Parallel, which counts processors
			t.Run(strconv.Itoa(lane), func(t *testing.T) {
				file := targets.SparseFile(t, diskSize)
				tgt := targets.StartISTGT(t, targets.Target{Name: targetName, LUNs: []targets.LUN{{Number: 0, Path: file}}})
				s := &subject{portal: tgt.Portal(), lun: 0, file: file, initialR2T: true}
				s.run(t, lane, lanes)
			})
		})
	}
	wg.Wait()
}
