package targetcmd

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/goiscsi/goiscsi/initiator/iscsitest"
	"github.com/goiscsi/goiscsi/initiator/scsi"
	"github.com/goiscsi/goiscsi/pdu"
)

// DefaultTarget is the target's name if there is no -T.
const DefaultTarget = "iqn.2001-04.com.example:target"

// Environment variables for secrets that no file is given for.
const (
	envPassword       = "ISCSI_TARGET_PASSWORD"
	envMutualPassword = "ISCSI_TARGET_MUTUAL_PASSWORD"
)

// A targetSpec is what the flags say about a target.
type targetSpec struct {
	name                     string
	tpgt                     uint16
	controller               bool
	user, passwordFile       string
	mutualUser, mutualSecret string
	initiators               []string
	unit                     unitSpec // for units to come
	units                    []unitSpec
}

// A unitSpec is what the flags say about a logical unit.
type unitSpec struct {
	kind, arg                            string // kind is file, mem or null
	blockSize                            int
	readOnly, thin, writeCache, rotating bool
}

// specs collects targets from flags, in their order.
type specs struct {
	all     targetSpec // before the first -T
	targets []*targetSpec
}

// current returns the target that flags are about.
func (s *specs) current() *targetSpec {
	if len(s.targets) == 0 {
		return &s.all
	}
	return s.targets[len(s.targets)-1]
}

// begin starts a target with what the flags before said about all.
func (s *specs) begin(name string) error {
	if err := pdu.ValidateName(name); err != nil {
		return err
	}
	t := s.all
	t.name = name
	t.units = append([]unitSpec(nil), s.all.units...)
	s.targets = append(s.targets, &t)
	return nil
}

func (t *targetSpec) addUnit(kind, arg string) {
	u := t.unit
	u.kind, u.arg = kind, arg
	t.units = append(t.units, u)
}

// errNoUnits is returned for a target that would serve nothing.
var errNoUnits = errors.New("no unit: use -file, -mem or -null")

// closer collects what has to be closed at the end.
type closer []*iscsitest.FileStore

// close syncs and closes the files.
func (c closer) close() error {
	var errs []error
	for _, s := range c {
		errs = append(errs, s.Sync(), s.Close())
	}
	return errors.Join(errs...)
}

// build opens the stores and returns the targets. The closer is valid also if
// there is an error.
func (s *specs) build(getenv func(string) string) (targets []iscsitest.Target, c closer, err error) {
	list := s.targets
	if len(list) == 0 {
		s.all.name = DefaultTarget
		list = []*targetSpec{&s.all}
	}
	// A unit given before the first -T is one unit in all targets.
	shared := map[unitSpec]*iscsitest.LUN{}
	for _, t := range list {
		it := iscsitest.Target{
			Name: t.name, TPGT: t.tpgt, Controller: t.controller, Initiators: t.initiators,
			LUNs: map[uint64]*iscsitest.LUN{},
		}
		if it.CHAP, err = t.chap(getenv); err != nil {
			return nil, c, fmt.Errorf("target %s: %w", t.name, err)
		}
		if len(t.units) == 0 && !t.controller {
			return nil, c, fmt.Errorf("target %s: %w", t.name, errNoUnits)
		}
		for i, u := range t.units {
			isShared := i < len(s.all.units)
			lun := shared[u]
			if lun == nil || !isShared {
				var file *iscsitest.FileStore
				if lun, file, err = u.open(); err != nil {
					return nil, c, err
				}
				if file != nil {
					c = append(c, file)
				}
			}
			if isShared {
				shared[u] = lun
			}
			it.LUNs[uint64(i+1)] = lun
		}
		targets = append(targets, it)
	}
	return targets, c, nil
}

// open makes a logical unit. file is its store if that has to be closed.
func (u unitSpec) open() (lun *iscsitest.LUN, file *iscsitest.FileStore, err error) {
	lun = &iscsitest.LUN{
		BlockSize: u.blockSize, ReadOnly: u.readOnly, Thin: u.thin, WriteCache: u.writeCache,
		Rotational: u.rotating, Type: scsi.TypeDisk,
	}
	if u.kind == "file" {
		path, size := u.arg, int64(0)
		if p, s, ok := cutLast(u.arg, ","); ok {
			if n, err := parseSize(s); err == nil {
				path, size = p, n
			}
		}
		if file, err = iscsitest.OpenFileStore(path, size, u.readOnly); err != nil {
			return nil, nil, err
		}
		lun.Store = file
		return lun, file, nil
	}
	size, err := parseSize(u.arg)
	if err != nil {
		return nil, nil, fmt.Errorf("-%s: %w", u.kind, err)
	}
	if u.kind == "mem" {
		lun.Store = iscsitest.NewMemStore(size)
	} else {
		lun.Store = iscsitest.NullStore(size)
	}
	return lun, nil, nil
}

// cutLast is strings.Cut around the last occurrence.
func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// chap reads the secrets.
func (t *targetSpec) chap(getenv func(string) string) (iscsitest.CHAP, error) {
	c := iscsitest.CHAP{Username: t.user, MutualUsername: t.mutualUser}
	var err error
	if t.user == "" {
		if t.mutualUser != "" || t.passwordFile != "" || t.mutualSecret != "" {
			return c, errors.New("-mutual-user and password files need -user")
		}
		return c, nil
	}
	if c.Password, err = secret(t.passwordFile, envPassword, getenv); err != nil {
		return c, fmt.Errorf("password of -user %s: %w", t.user, err)
	}
	if t.mutualUser != "" {
		if c.MutualPassword, err = secret(t.mutualSecret, envMutualPassword, getenv); err != nil {
			return c, fmt.Errorf("password of -mutual-user %s: %w", t.mutualUser, err)
		}
	}
	return c, nil
}

// maxSecret is more than any CHAP secret.
const maxSecret = 4096

// secret reads the first line of a file, or the environment.
func secret(path, env string, getenv func(string) string) (string, error) {
	s := getenv(env)
	if path != "" {
		b, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		if len(b) > maxSecret {
			return "", fmt.Errorf("%s is longer than %d bytes", path, maxSecret)
		}
		s, _, _ = strings.Cut(string(b), "\n")
		s = strings.TrimSuffix(s, "\r")
	}
	if s == "" {
		return "", fmt.Errorf("give it in a file or in the environment variable %s", env)
	}
	return s, nil
}

// parseSize parses a number of bytes with an optional suffix K, M, G or T for
// powers of 1024.
func parseSize(s string) (int64, error) {
	shift := 0
	num := s
	if n := len(s); n > 0 {
		if i := strings.IndexByte("KMGT", s[n-1]&^0x20); i >= 0 && s[n-1] >= 'A' {
			shift, num = 10*(i+1), s[:n-1]
		}
	}
	v, err := strconv.ParseInt(num, 10, 64)
	if err != nil || v <= 0 || v > (1<<63-1)>>shift {
		return 0, fmt.Errorf("%q is not a size: a number of bytes, or one with K, M, G or T", s)
	}
	return v << shift, nil
}
