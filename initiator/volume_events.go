package initiator

import "fmt"

// A VolumeEventType says what happened to a volume.
type VolumeEventType uint8

// The events of a volume.
const (
	// VolumeResized: the device grew or shrank; OldSize and Size tell. Size is
	// what Volume.Size returns from now on.
	VolumeResized VolumeEventType = iota + 1

	// VolumeReset: the device was reset or switched on, or lost our commands in
	// some other way. It was found to be the same, and the commands were sent
	// again. Writes that were answered but not flushed may be lost if its
	// cache is volatile.
	VolumeReset

	// VolumeReplaced: there is another device at the logical unit number; Err
	// is an *IdentityError. All operations fail from now on.
	VolumeReplaced

	// VolumeLUNsChanged: the target has other logical units than before. All
	// volumes of a session may report it, each once.
	VolumeLUNsChanged

	// VolumeSpaceLow: a thinly provisioned device reached its threshold.
	VolumeSpaceLow

	// VolumeModeChanged: ReadOnly or Features changed.
	VolumeModeChanged

	// VolumeDataLost: the device lost writes that it had answered; Err has the
	// sense data. The next flush fails with Err, too.
	VolumeDataLost
)

// String returns a short name.
func (t VolumeEventType) String() string {
	switch t {
	case VolumeResized:
		return "resized"
	case VolumeReset:
		return "reset"
	case VolumeReplaced:
		return "replaced"
	case VolumeLUNsChanged:
		return "logical units changed"
	case VolumeSpaceLow:
		return "space low"
	case VolumeModeChanged:
		return "mode changed"
	case VolumeDataLost:
		return "data lost"
	}
	return fmt.Sprintf("event %d", uint8(t))
}

// A VolumeEvent is something that happened to a volume. Fields that the type
// does not mention are zero.
type VolumeEvent struct {
	Type          VolumeEventType
	Volume        *Volume
	OldSize, Size int64 // bytes
	Err           error
}

// events are those that wait to be told to the owner. They are told by a
// goroutine of their own, so that the owner may use the volume, which may need
// the attendant. emit starts it, it ends when there are no more, Close waits for
// it. Volume.mu protects them.
//
// There is at most one of each type: a later one takes the place of an earlier
// one, so that an owner who takes long costs no memory.
type events struct {
	pending [VolumeDataLost + 1]VolumeEvent // Type is 0 where there is none
	running bool
}

// add puts an event among those that wait.
func (e *events) add(ev VolumeEvent) {
	if old := e.pending[ev.Type]; old.Type == VolumeResized {
		ev.OldSize = old.OldSize
	}
	e.pending[ev.Type] = ev
}

// take removes and returns one, if there is one.
func (e *events) take() (VolumeEvent, bool) {
	for i, ev := range e.pending {
		if ev.Type != 0 {
			e.pending[i] = VolumeEvent{}
			return ev, true
		}
	}
	return VolumeEvent{}, false
}

// emit has the owner told of an event.
func (v *Volume) emit(ev VolumeEvent) {
	if len(v.heard.all()) == 0 {
		return
	}
	ev.Volume = v
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return
	}
	v.events.add(ev)
	if !v.events.running {
		v.events.running = true
		v.running.Add(1)
		go v.tell()
	}
}

// tell calls the owner for each event that waits.
func (v *Volume) tell() {
	defer v.running.Done()
	for {
		v.mu.Lock()
		ev, ok := v.events.take()
		if !ok || v.closed {
			v.events.running = false
			v.mu.Unlock()
			return
		}
		v.mu.Unlock()
		v.heard.tell(ev)
	}
}
