package nodedb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/goiscsi/goiscsi/internal/iname"
)

// An Initiator is what initiatorname.iscsi says.
type Initiator struct {
	// Name is the InitiatorName.
	Name string
	// Alias is the InitiatorAlias, or empty.
	Alias string
}

// ErrNoInitiatorName says that a file has no line with an InitiatorName.
var ErrNoInitiatorName = errors.New("no InitiatorName")

// ParseInitiatorName reads an initiatorname.iscsi: the first line that has
// InitiatorName and no # before it counts, and what follows its equals sign is
// the name. The errors are ErrNoInitiatorName, a *NameError and the reader's.
func ParseInitiatorName(r io.Reader) (Initiator, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxConfigSize))
	if err != nil {
		return Initiator{}, err
	}
	var in Initiator
	for line := range bytes.Lines(data) {
		if v, ok := lineValue(string(line), "InitiatorName"); ok && in.Name == "" {
			in.Name = v
		}
		if v, ok := lineValue(string(line), "InitiatorAlias"); ok && in.Alias == "" {
			in.Alias = v
		}
	}
	if in.Name == "" {
		return Initiator{}, ErrNoInitiatorName
	}
	if reason := checkName(in.Name, MaxTargetLen); reason != "" {
		return Initiator{}, &NameError{What: "initiator name", Name: in.Name, Reason: reason}
	}
	if checkText(in.Alias) != "" {
		in.Alias = ""
	}
	return in, nil
}

// LoadInitiatorName reads initiatorname.iscsi at path. The errors are those of
// ParseInitiatorName and of reading the file.
func LoadInitiatorName(path string) (Initiator, error) {
	f, err := os.Open(path)
	if err != nil {
		return Initiator{}, err
	}
	defer f.Close()
	in, err := ParseInitiatorName(f)
	if err != nil {
		return Initiator{}, fmt.Errorf("%s: %w", path, err)
	}
	return in, nil
}

// EnsureInitiatorName reads initiatorname.iscsi at path and, when there is no
// file or no name in it, makes up a name and writes it there first. The file
// has mode 0600 and appears all at once; of several processes that do this at
// the same time one writes and all get the same name.
func EnsureInitiatorName(ctx context.Context, path string) (Initiator, error) {
	in, err := LoadInitiatorName(path)
	if err == nil || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ErrNoInitiatorName) {
		return in, err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Initiator{}, err
	}
	unlock, err := lockDir(ctx, dir)
	if err != nil {
		return Initiator{}, err
	}
	defer unlock()
	in, err = LoadInitiatorName(path) // another process may have been first
	if err == nil || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ErrNoInitiatorName) {
		return in, err
	}
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Initiator{}, err
	}
	name, err := iname.Generate("")
	if err != nil {
		return Initiator{}, err
	}
	if err := writeFileAtomic(path, withInitiatorName(old, name), dir); err != nil {
		return Initiator{}, err
	}
	return LoadInitiatorName(path)
}

// withInitiatorName returns the text of a file with a name added. Debian's
// package ships a file that only says GenerateName=yes; that line has then had
// its effect.
func withInitiatorName(old []byte, name string) []byte {
	var b bytes.Buffer
	if len(old) == 0 {
		b.WriteString("# The name by which this machine logs in to targets. It must be unique and\n" +
			"# should not change: targets decide by it who may log in.\n")
	}
	for line := range bytes.Lines(old) {
		if _, ok := lineValue(string(line), "GenerateName"); ok {
			continue
		}
		b.Write(line)
	}
	if b.Len() > 0 && b.Bytes()[b.Len()-1] != '\n' {
		b.WriteByte('\n')
	}
	b.WriteString("InitiatorName=" + name + "\n")
	return b.Bytes()
}
