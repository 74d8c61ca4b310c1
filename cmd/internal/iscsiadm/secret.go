package iscsiadm

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/nodedb"
)

// maxSecret bounds what is read for a password; nodedb refuses longer ones
// with a message of its own.
const maxSecret = nodedb.MaxValueLen + 2

// params returns the name/value pairs of the command line. The value of a
// password may say where the password is, so that it does not stand in the
// list of processes or in a shell's history:
//
//	@FILE         the first line of a file
//	-             the next line of standard input
//	env:NAME      an environment variable
//	literal:TEXT  TEXT, whatever it looks like
//
// Values of all other fields are taken as they are.
func (c *command) params() ([]nodedb.Param, error) {
	out := make([]nodedb.Param, len(c.req.params))
	var stdin *bufio.Reader
	for i, p := range c.req.params {
		if isSecret(p.Name) {
			if p.Value == "-" && stdin == nil {
				stdin = bufio.NewReaderSize(c.Stdin, 4096)
			}
			v, err := c.secret(p.Value, stdin)
			if err != nil {
				return nil, c.fail(errcode.Inval, "cannot read the value of %s: %v", p.Name, err)
			}
			p.Value = v
		}
		out[i] = p
	}
	return out, nil
}

// isSecret reports whether a field of any kind of record holds a password.
func isSecret(name string) bool {
	switch name {
	case nodedb.FieldPassword, nodedb.FieldPasswordIn, nodedb.FieldDiscPassword, nodedb.FieldDiscPasswordIn:
		return true
	}
	return false
}

// secret returns what the value of a password field stands for.
func (c *command) secret(value string, stdin *bufio.Reader) (string, error) {
	if text, ok := strings.CutPrefix(value, "literal:"); ok {
		return text, nil
	}
	if name, ok := strings.CutPrefix(value, "env:"); ok {
		v := c.Getenv(name)
		if v == "" {
			return "", fmt.Errorf("environment variable %q is not set", name)
		}
		return v, nil
	}
	if file, ok := strings.CutPrefix(value, "@"); ok {
		f, err := os.Open(file)
		if err != nil {
			return "", fmt.Errorf("%w (for a password that begins with @ write literal:@…)", err)
		}
		defer f.Close()
		return secretLine(bufio.NewReaderSize(f, 512), file)
	}
	if value == "-" {
		return secretLine(stdin, "standard input")
	}
	return value, nil
}

// secretLine reads one line without its end.
func secretLine(r *bufio.Reader, from string) (string, error) {
	var line []byte
	for len(line) <= maxSecret {
		b, err := r.ReadByte()
		if err == io.EOF || b == '\n' && err == nil {
			s := strings.TrimSuffix(string(line), "\r")
			if s == "" {
				return "", fmt.Errorf("%s has nothing in its first line", from)
			}
			return s, nil
		}
		if err != nil {
			return "", err
		}
		line = append(line, b)
	}
	return "", fmt.Errorf("the line in %s is longer than %d bytes", from, nodedb.MaxValueLen)
}
