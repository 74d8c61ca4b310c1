package initiator

import "testing"

func TestWindow(t *testing.T) {
	const top = 0xffffffff
	for _, tc := range []struct {
		name          string
		w             window
		exp, max      uint32
		wantExp, want uint32
		open          bool
	}{
		{"grows", window{10, 5, 12}, 10, 20, 10, 20, true},
		{"closes when used up", window{13, 5, 12}, 13, 12, 13, 12, false},
		{"older numbers are ignored", window{10, 8, 20}, 7, 15, 8, 20, true},
		{"MaxCmdSN below ExpCmdSN-1 is ignored", window{10, 5, 12}, 10, 8, 5, 12, true},
		{"MaxCmdSN of ExpCmdSN-1 closes", window{10, 5, 9}, 10, 9, 10, 9, false},
		{"acknowledgement of what was not sent is ignored", window{10, 5, 12}, 11, 99, 5, 12, true},
		{"across the wrap", window{top, top - 2, top}, top, 5, top, 5, true},
		{"after the wrap", window{2, top, 3}, 1, 7, 1, 7, true},
		{"old numbers after the wrap", window{2, 1, 7}, top, top, 1, 7, true},
		{"closed across the wrap", window{0, top, top}, 0, top, 0, top, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := tc.w
			w.update(tc.exp, tc.max)
			if w.expCmd != tc.wantExp || w.maxCmd != tc.want || w.open() != tc.open {
				t.Errorf("window %+v, open %v; want ExpCmdSN %d, MaxCmdSN %d, open %v", w, w.open(), tc.wantExp, tc.want, tc.open)
			}
		})
	}
}

func TestWindowTakeWraps(t *testing.T) {
	w := window{next: 0xffffffff, expCmd: 0xffffffff, maxCmd: 0}
	if a, b := w.take(), w.take(); a != 0xffffffff || b != 0 {
		t.Errorf("took %d and %d", a, b)
	}
	if w.open() {
		t.Error("open beyond MaxCmdSN")
	}
}

func TestSlotTags(t *testing.T) {
	table := newSlotTable(4)
	task := new(Task)
	a := table.alloc(task)
	first := a.itt
	if s, how := table.find(first); s != a || how != lookupFound {
		t.Fatalf("find: %v, %v", s, how)
	}
	if table.release(a) != task {
		t.Error("release returns another task")
	}
	if s, how := table.find(first); s != nil || how != lookupLate {
		t.Errorf("tag of a finished task: %v, %v, want late", s, how)
	}
	b := table.alloc(task)
	if b != a || b.itt == first {
		t.Errorf("second tag %#x after %#x", b.itt, first)
	}
	if s, how := table.find(first); s != nil || how != lookupLate {
		t.Errorf("old tag of a slot in use: %v, %v, want late", s, how)
	}
	for _, tag := range []uint32{b.itt + 1<<indexBits, b.itt + 4, mgmtIndex, 0xffffffff} {
		if s, how := table.find(tag); s != nil || how == lookupFound {
			t.Errorf("tag %#x: %v, %v", tag, s, how)
		}
	}
	if _, how := table.find(b.itt + 1<<indexBits); how != lookupUnknown {
		t.Errorf("tag of the future: %v, want unknown", how)
	}
	if _, how := table.find(b.itt + 4); how != lookupUnknown {
		t.Errorf("tag with an index outside of the table: %v, want unknown", how)
	}
}

func TestSlotTagsWrap(t *testing.T) {
	table := newSlotTable(2)
	task := new(Task)
	s := &table.slots[0]
	s.itt = genMask << indexBits // the last generation
	a := table.alloc(task)
	if a != s || a.itt != 0 {
		t.Fatalf("tag %#x after the last generation, want 0", a.itt)
	}
	if _, how := table.find(genMask << indexBits); how != lookupLate {
		t.Errorf("tag of the generation before the wrap: %v, want late", how)
	}
	if got, how := table.find(0); got != a || how != lookupFound {
		t.Errorf("tag 0: %v", how)
	}
}

func TestSlotTableFills(t *testing.T) {
	table := newSlotTable(3)
	seen := map[uint32]bool{}
	for !table.full() {
		s := table.alloc(new(Task))
		if seen[s.itt] {
			t.Errorf("tag %#x given twice", s.itt)
		}
		seen[s.itt] = true
	}
	if len(seen) != 3 || table.inUse() != 3 {
		t.Errorf("%d tags, %d in use", len(seen), table.inUse())
	}
}

func TestTaskList(t *testing.T) {
	a, b, c, d := new(Task), new(Task), new(Task), new(Task)
	var l, m taskList
	l.pushBack(c)
	l.pushBack(d)
	m.pushBack(a)
	m.pushBack(b)
	l.prepend(&m)
	if out := l.remove(func(x *Task) bool { return x == b || x == d }); out.n != 2 || out.popFront() != b || out.popFront() != d {
		t.Error("remove returns others")
	}
	l.pushBack(b)
	for i, want := range []*Task{a, c, b, nil} {
		if got := l.popFront(); got != want {
			t.Errorf("task %d is another", i)
		}
	}
	if l.n != 0 || l.tail != nil {
		t.Errorf("empty list %+v", l)
	}
}
