package pdu

// Serial number arithmetic of RFC 1982 with 32 bits, by which CmdSN, StatSN
// and DataSN are compared (RFC 7143 section 4.2.2.1). Two numbers that are
// exactly 2³¹ apart have no order: then each is less than the other, so that
// a window check which asks for "not less" refuses both.

// SerialLess reports whether a comes before b.
func SerialLess(a, b uint32) bool { return int32(a-b) < 0 }

// SerialLessEqual reports whether a is b or comes before it.
func SerialLessEqual(a, b uint32) bool { return int32(a-b) <= 0 }

// SerialCompare returns -1 if a comes before b, 0 if they are equal, and 1 if
// a comes after b.
func SerialCompare(a, b uint32) int {
	switch d := int32(a - b); {
	case d < 0:
		return -1
	case d > 0:
		return 1
	}
	return 0
}

// SerialInWindow reports whether n lies in the window that begins with first
// and ends with last, both included. A window with last = first-1 is closed.
// It is the rule for CmdSN between ExpCmdSN and MaxCmdSN.
func SerialInWindow(n, first, last uint32) bool {
	return SerialLessEqual(first, n) && SerialLessEqual(n, last)
}
