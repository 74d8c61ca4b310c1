// Package version holds the release number that every command prints and
// that stands in the "# BEGIN RECORD" line of a printed record.
package version

// Version is the release. A release build may replace it with
// -ldflags "-X github.com/goiscsi/goiscsi/internal/version.Version=…".
var Version = "3.0.0"
