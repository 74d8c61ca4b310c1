package nodedb

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
)

//go:embed iscsid.conf
var shippedConfig []byte

// maxConfigSize and maxConfigLine bound what is read; open-iscsi's buffer has
// 2048 bytes, too.
const (
	maxConfigSize = 1 << 20
	maxConfigLine = 2047
)

// Keys of iscsid.conf that are not fields of records.
const (
	ConfStartup          = "iscsid.startup"
	ConfSafeLogout       = "iscsid.safe_logout"
	ConfIPCAuthUID       = "iscsid.ipc_auth_uid"
	ConfControlGroup     = "iscsid.control_group"
	ConfMetricsAddress   = "iscsid.metrics_address"
	ConfMetricsRemote    = "iscsid.metrics_remote"
	ConfMirror           = "nodedb.mirror"
	ConfKeepNodeSettings = "discovery.keep_node_settings"
)

// programKeys returns the keys that are not fields of records.
func programKeys() []string {
	return []string{ConfStartup, ConfSafeLogout, ConfIPCAuthUID, ConfControlGroup, ConfMetricsAddress, ConfMetricsRemote, ConfMirror, ConfKeepNodeSettings}
}

// A Config is what iscsid.conf says: the settings that new records get, and
// those of the programs.
type Config struct {
	// Warnings tell, in open-iscsi's words, about lines that were ignored.
	Warnings []string

	fields  map[string]string // normalized values of node.* and discovery.*
	program map[string]string // values of the Conf keys
}

// ShippedConfig returns the iscsid.conf that comes with this program. Its
// values are those that hold when there is no such file.
func ShippedConfig() []byte { return bytes.Clone(shippedConfig) }

// LoadConfig reads iscsid.conf at path. If there is none, the shipped one
// holds; in a file that is there, what it leaves out has the built-in default.
// The errors are those of reading the file.
func LoadConfig(path string) (*Config, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return (*Config)(nil).orShipped(), nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c, err := ParseConfig(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// ParseConfig reads an iscsid.conf. Lines are "key = value" with white space
// before the equals sign; empty lines and those that begin with # do not count,
// nor do keys that are not known. Lines that are wrong are ignored with a
// warning. The errors are the reader's and one for files of more than 1 MiB.
func ParseConfig(r io.Reader) (*Config, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxConfigSize+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxConfigSize {
		return nil, fmt.Errorf("larger than %d bytes", maxConfigSize)
	}
	c := &Config{fields: make(map[string]string), program: make(map[string]string)}
	n := 0
	for line := range bytes.Lines(data) {
		n++
		c.parseLine(n, string(line))
	}
	return c, nil
}

func (c *Config) warnf(format string, args ...any) {
	c.Warnings = append(c.Warnings, fmt.Sprintf(format, args...))
}

// isSpace is C's isspace.
func isSpace(b byte) bool { return b == ' ' || b >= '\t' && b <= '\r' }

func (c *Config) parseLine(n int, line string) {
	if len(line) > maxConfigLine {
		c.warnf("Config file line %d too long.", n)
		return
	}
	line = strings.Trim(line, " \t\n\v\f\r")
	if line == "" || line[0] == '#' {
		return
	}
	// The programs' own keys are found more easily than fields: anywhere in
	// the line, with or without white space.
	for _, key := range programKeys() {
		if v, ok := lineValue(line, key); ok {
			if _, dup := c.program[key]; !dup {
				c.program[key] = v
			}
			return
		}
	}

	end := strings.IndexFunc(line, func(r rune) bool { return r == '=' || r < 0x80 && isSpace(byte(r)) })
	if end < 0 {
		c.warnf("Config file line %d does not have value", n)
		return
	}
	name, rest := line[:end], strings.TrimLeft(line[end+1:], " \t\v\f\r")
	switch {
	case rest == "":
		c.warnf("Config file line %d does not have value", n)
		return
	case rest[0] != '=':
		c.warnf("Config file line %d does not have '=' separator", n)
		return
	}
	value := strings.TrimLeft(rest[1:], " \t\v\f\r")
	if value == "" {
		c.warnf("Config file line %d does not have value", n)
		return
	}
	c.setField(n, name, value)
}

// setField stores the value of a field of new records, if it is one.
func (c *Config) setField(n int, name, value string) {
	if strings.HasPrefix(name, "iface.") {
		return // interfaces have records of their own
	}
	for _, t := range []*table{nodeTable, sendTargetsTable, isnsTable} {
		f := t.lookup(name)
		if f == nil || f.ReadOnly {
			continue
		}
		norm, warnings, err := f.Normalize(value)
		if err != nil {
			if f.Secret() {
				value = mask
			}
			c.warnf("config file line %d contains unknown value format '%s' for parameter name '%s'", n, printable(value), name)
			return
		}
		c.Warnings = append(c.Warnings, warnings...)
		c.fields[name] = norm
		return
	}
}

// lineValue is open-iscsi's other way to find a key in a file: the line has the
// key somewhere and no # before it, the value is what follows the next equals
// sign, without the white space around it.
func lineValue(line, key string) (string, bool) {
	i := strings.Index(line, key)
	if i < 0 || strings.Contains(line[:i], "#") {
		return "", false
	}
	_, v, ok := strings.Cut(line[i+len(key):], "=")
	return strings.TrimSpace(v), ok
}

// shipped is the configuration that comes with the program, read once. Nobody
// changes a Config.
var shipped = sync.OnceValue(func() *Config {
	c, err := ParseConfig(bytes.NewReader(shippedConfig))
	if err != nil || len(c.Warnings) > 0 {
		panic("nodedb: the shipped iscsid.conf is wrong") // a test sees to it that it is not
	}
	return c
})

// orShipped returns c, or the shipped configuration for nil.
func (c *Config) orShipped() *Config {
	if c != nil {
		return c
	}
	return shipped()
}

// fill gives a new record the settings of the configuration.
func (c *Config) fill(r *record) {
	for i := range r.t.fields {
		if v, ok := c.fields[r.t.fields[i].Name]; ok {
			r.vals[i] = v
		}
	}
}

// Lookup returns the value that the file gives a field of new records or one
// of the Conf keys; ok is false when the file does not have it.
func (c *Config) Lookup(name string) (value string, ok bool) {
	c = c.orShipped()
	if v, ok := c.fields[name]; ok {
		return v, true
	}
	v, ok := c.program[name]
	return v, ok
}

// Startup returns the command that starts the daemon (iscsid.startup), or
// nothing.
func (c *Config) Startup() string { return c.orShipped().program[ConfStartup] }

// SafeLogout reports whether logout is refused while a disk of the session is
// in use (iscsid.safe_logout, default No).
func (c *Config) SafeLogout() bool { return c.orShipped().program[ConfSafeLogout] == "Yes" }

// Mirror returns the directory in which open-iscsi's file tree is kept in step
// with the database (nodedb.mirror), or nothing.
func (c *Config) Mirror() string { return c.orShipped().program[ConfMirror] }

// KeepNodeSettings reports whether discovery leaves the settings of node
// records alone that exist (discovery.keep_node_settings, default No as in
// open-iscsi, which sets them back to those of iscsid.conf).
func (c *Config) KeepNodeSettings() bool {
	return c.orShipped().program[ConfKeepNodeSettings] == "Yes"
}
