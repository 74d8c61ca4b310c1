package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// stateVersion is the format of the files that a store writes. A daemon
// leaves alone what a newer one wrote.
const stateVersion = 1

// A sessionState is what a daemon needs to take a session up again that an
// earlier one held. It contains the record with its secrets, so the file has
// mode 0600 in a directory of mode 0700.
type sessionState struct {
	Version int               `json:"version"`
	Boot    string            `json:"boot"`
	SID     int               `json:"sid"`
	Host    int               `json:"host"`
	Created time.Time         `json:"created"`
	Name    string            `json:"initiator_name"`
	Record  map[string]string `json:"record"`
	Units   []unitState       `json:"units"`
	// Removed are the units that were taken away by request and are to stay
	// away, as eight bytes of the wire.
	Removed []uint64 `json:"removed,omitempty"`
	// Ending says that the session was being logged out of: what is left of
	// it is to be removed.
	Ending bool `json:"ending,omitempty"`
}

// A unitState is one logical unit that was, or was about to be, offered.
type unitState struct {
	LUN       uint64     `json:"lun"` // eight bytes of the wire, big endian
	Attach    attachKind `json:"attach"`
	Backend   string     `json:"backend,omitempty"` // BACKEND_IDENTIFIER of the kernel device
	Index     int        `json:"index"`             // N of nbdN, -1 until the kernel has told
	WWID      string     `json:"wwid"`
	Size      int64      `json:"size"`       // bytes
	BlockSize int        `json:"block_size"` // bytes
	ReadOnly  bool       `json:"read_only"`
}

// counters are the numbers that must not be given out twice in one boot.
type counters struct {
	Version  int    `json:"version"`
	Boot     string `json:"boot"`
	Instance string `json:"instance"` // marks this directory's kernel devices
	NextSID  int    `json:"next_sid"`
	NextHost int    `json:"next_host"`
}

// A store keeps the daemon's state in one directory: counters.json and a
// session-N.json for each session. Files are replaced by rename, so a reader
// sees the old or the new one. They are not synced to a disk: they are worth
// nothing after a reboot, and surviving the process needs no more than the
// page cache.
//
// A store is used under the registry's lock (counters) or by the one
// supervisor whose sid it is (session files); it has no lock of its own.
type store struct {
	dir      string
	boot     string // id of this boot
	instance string // marks this directory's kernel devices
	log      *slog.Logger
	nums     counters
}

const (
	countersFile  = "counters.json"
	sessionPrefix = "session-"
	sessionSuffix = ".json"
)

// openStore opens or makes the directory. State of another boot is removed:
// its kernel devices are gone. firstHost is the first host number to give
// out when counting starts anew, instance the mark to use then.
func openStore(dir, boot, instance string, firstHost int, log *slog.Logger) (*store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	s := &store{dir: dir, boot: boot, instance: instance, log: log}
	err := readJSON(filepath.Join(dir, countersFile), &s.nums)
	if err == nil && s.nums.Boot == boot && s.nums.NextSID > 0 && s.nums.Instance != "" {
		s.instance = s.nums.Instance
		return s, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("cannot read the session counters, counting on from the highest session known", "err", err)
	}
	s.nums = counters{Version: stateVersion, Boot: boot, Instance: instance, NextSID: 1, NextHost: firstHost}
	states, err := s.load()
	if err != nil {
		return nil, err
	}
	for _, st := range states {
		s.nums.NextSID = max(s.nums.NextSID, st.SID+1)
		s.nums.NextHost = max(s.nums.NextHost, st.Host+1)
	}
	return s, s.write(countersFile, &s.nums)
}

// next takes a session id and a host number. Both are on file before they
// are returned.
func (s *store) next() (sid, host int, err error) {
	n := s.nums
	n.NextSID++
	n.NextHost++
	if err := s.write(countersFile, &n); err != nil {
		return 0, 0, err
	}
	sid, host = s.nums.NextSID, s.nums.NextHost
	s.nums = n
	return sid, host, nil
}

// put writes the state of one session.
func (s *store) put(st *sessionState) error {
	st.Version, st.Boot = stateVersion, s.boot
	return s.write(sessionFile(st.SID), st)
}

// remove forgets the session; a missing file is no error.
func (s *store) remove(sid int) error {
	err := os.Remove(filepath.Join(s.dir, sessionFile(sid)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// load returns the sessions on file, by sid. A file that cannot be
// understood is logged and kept aside as FILE.bad; one of another boot and
// one that a killed writer left is removed.
func (s *store) load() ([]*sessionState, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	var out []*sessionState
	for _, e := range entries {
		name := e.Name()
		file := filepath.Join(s.dir, name)
		if strings.HasPrefix(name, tempPrefix) {
			os.Remove(file)
			continue
		}
		digits, ok := strings.CutSuffix(strings.TrimPrefix(name, sessionPrefix), sessionSuffix)
		if !ok || !strings.HasPrefix(name, sessionPrefix) {
			continue
		}
		sid, err := strconv.Atoi(digits)
		st := new(sessionState)
		if err == nil {
			err = readJSON(file, st)
		}
		switch {
		case err == nil && st.Boot != s.boot:
			os.Remove(file)
		case err == nil && st.Version > stateVersion:
			s.log.Warn("state of a newer iscsid is left alone", "file", file, "version", st.Version)
		case err != nil || st.SID != sid || sid <= 0:
			s.log.Warn("state file is put aside: it cannot be read", "file", file, "err", err)
			if err := os.Rename(file, file+".bad"); err != nil {
				s.log.Warn("cannot put the state file aside", "file", file, "err", err)
			}
		default:
			out = append(out, st)
		}
	}
	slices.SortFunc(out, func(a, b *sessionState) int { return a.SID - b.SID })
	return out, nil
}

func sessionFile(sid int) string {
	return sessionPrefix + strconv.Itoa(sid) + sessionSuffix
}

// maxStateFile bounds what is read of one state file, in bytes: a session has
// at most maxUnits units.
const maxStateFile = 4 << 20

func readJSON(file string, v any) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if st.Size() > maxStateFile {
		return fmt.Errorf("%s: %d bytes are more than a state file has", file, st.Size())
	}
	if err := json.NewDecoder(f).Decode(v); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

// tempPrefix begins the names of files that are not complete yet.
const tempPrefix = ".new-"

func (s *store) write(name string, v any) error {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return fmt.Errorf("state %s: %w", name, err)
	}
	temp := filepath.Join(s.dir, tempPrefix+name)
	if err := os.WriteFile(temp, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("state: %w", err)
	}
	if err := os.Rename(temp, filepath.Join(s.dir, name)); err != nil {
		return fmt.Errorf("state: %w", err)
	}
	return nil
}
