package doctor

import (
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Machine is this machine.
type Machine struct{}

var _ System = Machine{}

// ReadFile implements System.
func (Machine) ReadFile(path string) ([]byte, error) { return os.ReadFile(path) }

// Stat implements System.
func (Machine) Stat(path string) (fs.FileInfo, error) { return os.Stat(path) }

// Glob implements System.
func (Machine) Glob(pattern string) []string {
	l, _ := filepath.Glob(pattern) // patterns of ours are well formed
	return l
}

// Now implements System.
func (Machine) Now() time.Time { return time.Now() }
