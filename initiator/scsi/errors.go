package scsi

import "fmt"

// A FormatError says that data from the wire cannot be what they claim to be.
type FormatError struct {
	What   string // the structure, "sense data" or "VPD page 0x83"
	Reason string // what is wrong with it
}

// Error implements error.
func (e *FormatError) Error() string {
	return fmt.Sprintf("malformed %s: %s", e.What, e.Reason)
}

// short is the FormatError for data that end before want bytes.
func short(what string, got, want int) error {
	return &FormatError{What: what, Reason: fmt.Sprintf("%d bytes, need %d", got, want)}
}
