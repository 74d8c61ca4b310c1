package initiator

import "slices"

// maxSpans bounds what is remembered of the order in which the data of a read
// come: as many pieces between which others are still missing.
const maxSpans = 4096

// A span is the bytes from, inclusive, to to, exclusive.
type span struct{ from, to int }

// A spanSet is the set of bytes of a read that have come, where they may come in any
// order: spans that neither overlap nor touch, in ascending order. RFC 7143 section
// 13.18 leaves the order to the target then, but counting alone would take data that
// come twice for data that fill a hole.
type spanSet []span

// add adds bytes and reports whether all of them are new. A set that would become
// larger than maxSpans does not take them either.
func (s *spanSet) add(from, to int) bool {
	if from >= to {
		return true
	}
	set := *s
	i, _ := slices.BinarySearchFunc(set, from, func(sp span, from int) int { return sp.to - from })
	// set[i] is the first span that ends at from or behind it.
	joins := i < len(set) && set[i].to == from
	next := i
	if joins {
		next++
	}
	if next < len(set) && set[next].from < to {
		return false
	}
	meets := next < len(set) && set[next].from == to
	switch {
	case joins && meets:
		set[i].to = set[next].to
		set = slices.Delete(set, next, next+1)
	case joins:
		set[i].to = to
	case meets:
		set[next].from = from
	case len(set) == maxSpans:
		return false
	default:
		set = slices.Insert(set, i, span{from, to})
	}
	*s = set
	return true
}
