package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
)

// A udevStore tells udev what our kernel devices are: a file for each, of the
// properties that path_id and scsi_id find for a SCSI disk, and named after the
// device's backend identifier. The rule finds that in sysfs. A file is there
// before its device is, so no event comes too early, and it is gone before
// the links are, so no late event makes them again.
//
// Files are written and removed by the supervisor whose device it is; names
// are never used twice, so no lock is needed.
type udevStore struct {
	dir string // RUN/udev
	log *slog.Logger
}

// openUdevStore makes the directory, and removes the files that an earlier
// daemon has left of devices that keep does not name.
func openUdevStore(dir string, keep []*sessionState, log *slog.Logger) (*udevStore, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("udev directory: %w", err)
	}
	known := make(map[string]bool)
	for _, st := range keep {
		for _, u := range st.Units {
			known[u.Backend] = true
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("udev directory: %w", err)
	}
	s := &udevStore{dir: dir, log: log}
	for _, e := range entries {
		if !known[e.Name()] {
			s.remove(e.Name())
		}
	}
	return s, nil
}

// put writes the properties of a device. A failure costs the links that only
// udev makes, so it is logged and no more.
func (s *udevStore) put(backend string, info *unitInfo, link string) {
	temp := filepath.Join(s.dir, tempPrefix+backend)
	err := os.WriteFile(temp, []byte(udevProperties(info, link)), 0o644)
	if err == nil {
		err = os.Rename(temp, filepath.Join(s.dir, backend))
	}
	if err != nil {
		s.log.Warn("udev is not told of a device", "backend", backend, "err", err)
	}
}

func (s *udevStore) remove(backend string) {
	if backend == "" {
		return
	}
	if err := os.Remove(filepath.Join(s.dir, backend)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("properties for udev stay behind", "backend", backend, "err", err)
	}
}

// udevProperties returns what udev's scsi_id --export and path_id print for
// such a disk, for IMPORT{file}. What the target has said is in there only
// in characters that udev allows in names: a line break would be a property.
func udevProperties(info *unitInfo, link string) string {
	var b strings.Builder
	set := func(key, value string) {
		if value != "" {
			b.WriteString(key + "=" + value + "\n")
		}
	}
	set("ID_ISCSI", "1")
	set("ID_BUS", "scsi")
	set("ID_SCSI", "1")
	set("ID_TYPE", "disk")
	set("ID_VENDOR", udevWord(info.vendor))
	set("ID_VENDOR_ENC", udevEncode(info.vendor))
	set("ID_MODEL", udevWord(info.model))
	set("ID_MODEL_ENC", udevEncode(info.model))
	set("ID_REVISION", udevWord(info.revision))
	set("ID_SCSI_SERIAL", udevWord(info.serial))
	set("SCSI_IDENT_SERIAL", udevWord(info.serial))
	wwid := udevSerial(info)
	set("ID_SERIAL", wwid)
	if len(wwid) > 1 {
		set("ID_SERIAL_SHORT", wwid[1:])
	}
	if name, ok := naaName(wwid); ok {
		// An NAA name: 8 bytes, or 8 and an extension of the vendor's as long.
		set("ID_WWN_WITH_EXTENSION", "0x"+name)
		if len(name) > naaDigits {
			set("ID_WWN_VENDOR_EXTENSION", "0x"+name[naaDigits:])
			name = name[:naaDigits]
		}
		set("ID_WWN", "0x"+name)
	}
	set("ID_PATH", link)
	set("ID_PATH_TAG", udevTag(link))
	return b.String()
}

// udevSerial is what scsi_id makes the ID_SERIAL of a unit: its name of page
// 83h, else vendor, model and serial number; "" where it has neither.
func udevSerial(info *unitInfo) string {
	if wwid := udevWord(info.wwid); wwid != "" || info.serial == "" {
		return wwid
	}
	return "S" + udevWord(info.vendor) + "_" + udevWord(info.model) + "_" + udevWord(info.serial)
}

// naaName returns the NAA name that a serial is made of.
func naaName(serial string) (string, bool) {
	name, ok := strings.CutPrefix(serial, "3")
	return name, ok && isHex(name)
}

// byIDNames are the names that udev's rules, ours among them, make of these
// properties in disk/by-id.
func byIDNames(info *unitInfo) []string {
	serial := udevSerial(info)
	if serial == "" || len(serial) > maxLinkName-len("scsi-") {
		return nil
	}
	names := []string{"scsi-" + serial}
	if name, ok := naaName(serial); ok {
		names = append(names, "wwn-0x"+name)
	}
	return names
}

// naaDigits is the length of an NAA name without extension in hexadecimal.
const naaDigits = 16

func isHex(s string) bool {
	return s != "" && strings.Trim(s, "0123456789abcdefABCDEF") == ""
}

// udevAllowed is udev's set of characters for the names of links, without the
// slash.
func udevAllowed(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return c != 0 && strings.IndexByte("#+-.:=@_", c) >= 0
}

// udevWord makes a value of a name: blanks at the ends go, runs of them become
// one underscore, and so does what is not allowed.
func udevWord(s string) string {
	b := []byte(strings.Join(strings.Fields(s), "_"))
	for i, c := range b {
		if !udevAllowed(c) {
			b[i] = '_'
		}
	}
	return string(b)
}

// udevEncode is the form of the _ENC properties: what is not allowed in a name
// is \xNN, so that programs can have the value as it was.
func udevEncode(s string) string {
	var b strings.Builder
	for _, c := range []byte(strings.TrimSpace(s)) {
		if udevAllowed(c) {
			b.WriteByte(c)
			continue
		}
		fmt.Fprintf(&b, `\x%02x`, c)
	}
	return b.String()
}

// udevTag is path_id's form of a path for tags: letters, digits, '-' and, for
// what is in between, single underscores.
func udevTag(path string) string {
	var b []byte
	for _, c := range []byte(path) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-':
			b = append(b, c)
		case len(b) > 0 && b[len(b)-1] != '_':
			b = append(b, '_')
		}
	}
	return strings.TrimRight(string(b), "_")
}
