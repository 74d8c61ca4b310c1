package iscsiadm

import (
	"slices"
	"strings"
	"testing"
)

func TestOptionTableIsConsistent(t *testing.T) {
	seen := map[string]bool{}
	for _, o := range options {
		if seen[o.Long] || o.Short != 0 && seen[string(rune(o.Short))] {
			t.Errorf("option %c/%s stands twice in the table", o.Short, o.Long)
		}
		seen[o.Long], seen[string(rune(o.Short))] = true, true
		if o.Help == "" {
			t.Errorf("option %s has no help", o.Long)
		}
	}
	for mode, letters := range modes {
		for _, c := range []byte(letters) {
			if options.Short(c) == nil {
				t.Errorf("mode %s takes -%c, which is not in the table", mode, c)
			}
		}
	}
}

func TestModesAreNamedToThoseWhoKnowNone(t *testing.T) {
	named := strings.Split(modeWords, ", ")
	for mode := range modes {
		if !slices.Contains(named, mode) {
			t.Errorf("mode %s is not named", mode)
		}
	}
	if len(named) != len(modes) {
		t.Errorf("%d modes are named, there are %d", len(named), len(modes))
	}
}
