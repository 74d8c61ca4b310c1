package doctor

// A Status says how bad a finding is.
type Status string

// The states of a finding.
const (
	OK      Status = "ok"
	Note    Status = "note"    // nothing wrong, but good to know
	Warning Status = "warning" // works, but not as it should or not for long
	Problem Status = "problem" // something does not work
)

// A Finding is the outcome of a check.
type Finding struct {
	Check  string `json:"check"` // "kernel nbd", "portal", …
	Status Status `json:"status"`
	Text   string `json:"text"`             // what was found
	Advice string `json:"advice,omitempty"` // what to do about it
}

// Findings are those of an examination, in the order of the checks.
type Findings []Finding

func (f *Findings) add(check string, s Status, text, advice string) {
	*f = append(*f, Finding{check, s, text, advice})
}

// Count returns how many findings have a status.
func (f Findings) Count(s Status) int {
	n := 0
	for i := range f {
		if f[i].Status == s {
			n++
		}
	}
	return n
}
