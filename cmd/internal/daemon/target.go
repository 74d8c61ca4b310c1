package daemon

import (
	"context"

	"github.com/goiscsi/goiscsi/initiator"
	"github.com/goiscsi/goiscsi/pdu"
)

// dialTarget returns what logs in to a target over the network.
func dialTarget(k *processorKeeper) dialFunc {
	return func(ctx context.Context, cfg initiator.Config) (session, error) {
		s, err := initiator.Dial(ctx, cfg)
		if err != nil {
			return nil, err
		}
		return realSession{s, newGatherer(k)}, nil
	}
}

// realSession is a session with a target.
type realSession struct {
	s *initiator.Session
	g *gatherer
}

func (r realSession) info() initiator.Info                        { return r.s.Info() }
func (r realSession) stats() initiator.Stats                      { return r.s.Stats() }
func (r realSession) trace() (*initiator.Trace, error)            { return r.s.Trace(initiator.TraceOptions{}) }
func (r realSession) luns(ctx context.Context) ([]pdu.LUN, error) { return r.s.LUNs(ctx) }
func (r realSession) logout(ctx context.Context) error            { return r.s.Logout(ctx) }
func (r realSession) close() error                                { return r.s.Close() }
func (r realSession) done() <-chan struct{}                       { return r.s.Done() }
func (r realSession) err() error                                  { return r.s.Err() }

func (r realSession) inquire(ctx context.Context, lun pdu.LUN) (unitInfo, error) {
	i, err := r.s.Inquire(ctx, lun)
	if err != nil {
		return unitInfo{}, err
	}
	return infoOf(i), nil
}

func infoOf(i *initiator.LUNInfo) unitInfo {
	return unitInfo{
		present: i.Present(), kind: i.Type.String(), disk: i.IsDisk(),
		vendor: i.Vendor, model: i.Product, revision: i.Revision,
		serial: i.Identity.Serial, wwid: i.Identity.WWID, id: i.Identity,
	}
}

func (r realSession) open(ctx context.Context, lun pdu.LUN, info unitInfo, event func(uint32)) (volume, error) {
	v, err := r.s.OpenVolumeWith(ctx, lun, initiator.VolumeOptions{
		Identity: info.id,
		OnEvent: func(e initiator.VolumeEvent) {
			switch e.Type {
			case initiator.VolumeResized, initiator.VolumeModeChanged:
				event(eventGeometry)
			case initiator.VolumeReplaced, initiator.VolumeLUNsChanged:
				event(eventInventory)
			}
		},
	})
	if err != nil {
		return nil, err
	}
	return realVolume{v, r.g}, nil
}

// realVolume is a disk of a target.
type realVolume struct {
	*initiator.Volume
	g *gatherer // of the session
}

// Submit implements attach.Submitter.
func (r realVolume) Submit(q *initiator.Request) {
	r.g.submitted(r.Volume)
	r.Volume.Submit(q)
}

// Kick implements attach.Submitter.
func (r realVolume) Kick() {
	r.g.gather()
	r.Volume.Kick()
}

func (r realVolume) geometry() geometry {
	f := r.Features()
	return geometry{
		size: r.Size(), blockSize: r.BlockSize(), readOnly: f.ReadOnly, flush: f.WriteCache, fua: f.FUA,
		trim: f.Discard, zeroes: f.WriteZeroes, rotational: f.Rotational,
	}
}

func (r realVolume) stats() initiator.VolumeStats { return r.Stats() }
func (r realVolume) info() unitInfo {
	i := r.Info()
	return infoOf(&i)
}

func (r realVolume) refresh(ctx context.Context) error { return r.Refresh(ctx) }
func (r realVolume) close()                            { _ = r.Close() } // has no error
