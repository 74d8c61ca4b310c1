package initiator

import (
	"testing"
	"time"
)

func TestReadingServesWhatComesTogether(t *testing.T) {
	c := clock{time.Now().Add(-time.Hour)}
	var r reading
	first := r.of(c)
	for n := range maxReadingUses - 1 {
		if at := r.of(c); at != first {
			t.Fatalf("use %d: %v, not %v", n+2, at, first)
		}
	}
	c.epoch = c.epoch.Add(-time.Hour)
	if at := r.of(c); at < first+time.Hour {
		t.Errorf("%v after as many uses as it may have, first %v", at, first)
	}
	r.forget()
	c.epoch = c.epoch.Add(-time.Hour)
	if at := r.of(c); at < first+2*time.Hour {
		t.Errorf("%v after it was forgotten, first %v", at, first)
	}
}

func TestRequestsAfterAKickGetANewReading(t *testing.T) {
	v := newFakeDisk(t, 1<<20, 512).open(t, VolumeOptions{})
	submit := func() time.Duration {
		r := &Request{Op: OpRead, Data: make([]byte, v.BlockSize())}
		v.Submit(r)
		return r.began
	}
	first := submit()
	if again := submit(); again != first {
		t.Errorf("%v, not %v, without a Kick between them", again, first)
	}
	v.Kick()
	if next := submit(); next == first {
		t.Errorf("%v before and after a Kick", next)
	}
	v.Kick()
}
