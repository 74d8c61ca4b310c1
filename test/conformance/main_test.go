package conformance

import (
	"flag"
	"testing"

	"go.uber.org/goleak"
)

// update has TestRegister write docs/conformance.md.
var update = flag.Bool("update", false, "write docs/conformance.md")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
