package initiator

// Layout of an initiator task tag: generation << 12 | index.
const (
	indexBits = 12
	indexMask = 1<<indexBits - 1
	// mgmtIndex marks the tags of management requests. Slots have smaller
	// indexes.
	mgmtIndex = indexMask
	genMask   = 1<<(32-indexBits) - 1
)

// A slotState says where the task of a slot stands.
type slotState uint8

const (
	slotFree slotState = iota
	// slotSent: its command is in the send queue, on the wire or with the target.
	slotSent
	// slotDraining: the target has answered, but its DataOut is still
	// referenced by the send queue.
	slotDraining
)

// A slot holds what the session knows of a task in flight. Session.mu protects
// it, with one exception that keeps the receive path short: only the receive
// goroutine takes a slot out of slotSent while its connection lives, so that
// goroutine may read task without the lock once it has found the slot, and the
// fields under "receive" are its own.
type slot struct {
	state slotState
	// aborting: a task management function is under way for the task; its R2Ts
	// are not answered any more.
	aborting bool
	// again: the task was reassigned; the target may begin again with an R2T that
	// it has sent before.
	again bool
	index uint16
	itt   uint32 // tag while in use; its generation grows with every use
	cmdSN uint32
	task  *Task
	conn  *conn // that the task keeps to

	// Numbers of batches of the send queue.
	cmdBatch  uint64 // the one with the command
	dataBatch uint64 // the last one that references DataOut

	sent int // bytes of DataOut appended to the send queue

	// R2Ts that were answered into batch r2tBatch.
	r2tBatch uint64
	r2tCount int

	// Receive.
	dataSN   uint32    // next DataSN or R2TSN, which share one numbering
	received int       // bytes of Data-In so far
	came     spanSet   // which ones, where they may come in any order; keeps its memory
	recovery *recovery // what is missing; nil on error recovery level 0; keeps its memory
}

// A slotTable finds slots by tag without a search and gives out free ones. It is
// made once for a session.
type slotTable struct {
	slots []slot
	free  []uint16 // indexes; last in, first out keeps the used ones in cache
}

func newSlotTable(n int) slotTable {
	t := slotTable{slots: make([]slot, n), free: make([]uint16, n)}
	for i := range t.slots {
		t.slots[i].index = uint16(i)
		t.slots[i].itt = uint32(i)
		t.free[n-1-i] = uint16(i)
	}
	return t
}

// inUse returns the number of slots that are not free.
func (t *slotTable) inUse() int { return len(t.slots) - len(t.free) }

// full reports whether no slot is free.
func (t *slotTable) full() bool { return len(t.free) == 0 }

// alloc gives a task a free slot with a new tag. There must be one.
func (t *slotTable) alloc(task *Task) *slot {
	i := t.free[len(t.free)-1]
	t.free = t.free[:len(t.free)-1]
	s := &t.slots[i]
	gen := (s.itt>>indexBits + 1) & genMask
	*s = slot{state: slotSent, index: i, itt: gen<<indexBits | uint32(i), task: task, came: s.came[:0], recovery: s.recovery}
	if s.recovery != nil {
		*s.recovery = recovery{}
	}
	return s
}

// release frees a slot and returns its task.
func (t *slotTable) release(s *slot) *Task {
	task := s.task
	if s.conn != nil {
		s.conn.relieve()
	}
	s.state, s.task, s.conn = slotFree, nil, nil
	t.free = append(t.free, s.index)
	return task
}

// A lookup is the outcome of a search for a tag.
type lookup uint8

const (
	lookupFound   lookup = iota // the task is in flight
	lookupLate                  // the tag was in use and is not any more
	lookupUnknown               // the tag was never issued
)

// find returns the slot with the tag if its task waits for the target.
func (t *slotTable) find(itt uint32) (*slot, lookup) {
	i := itt & indexMask
	if int(i) >= len(t.slots) {
		return nil, lookupUnknown
	}
	s := &t.slots[i]
	if s.itt == itt && s.state == slotSent {
		return s, lookupFound
	}
	// Generations count up: the half behind the present one is the past. That
	// takes some tags that were never issued for old ones, which does no harm:
	// both are ignored.
	if (s.itt>>indexBits-itt>>indexBits)&genMask <= genMask/2 {
		return nil, lookupLate
	}
	return nil, lookupUnknown
}

// each calls f for every slot that is not free.
func (t *slotTable) each(f func(*slot)) {
	for i := range t.slots {
		if t.slots[i].state != slotFree {
			f(&t.slots[i])
		}
	}
}
