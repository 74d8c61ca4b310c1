package nodedb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// DefaultTimeout is how long a transaction waits for the lock unless Options
// say otherwise.
const DefaultTimeout = 30 * time.Second

// Options of a database. The zero value is good.
type Options struct {
	// Timeout is how long a transaction waits for other processes; 0 is
	// DefaultTimeout, less waits as long as the context allows.
	Timeout time.Duration
	// Mirror is a directory in which open-iscsi's tree of files is kept in
	// step with the database; empty is none. See docs/records.md.
	Mirror string
	// Logger gets what is worth knowing but no error: records that cannot be
	// read, trouble with the mirror. Nil is slog.Default.
	Logger *slog.Logger
}

// A DB is a node database at a path. It holds nothing open.
type DB struct {
	path string
	o    Options
}

// New returns the database at path. Neither the file nor its directory need
// exist: what is missing reads as empty and is made by the first Update, the
// directory with mode 0700, the file with 0600.
func New(path string, o Options) *DB {
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return &DB{path: path, o: o}
}

// Path returns the path of the database's file.
func (db *DB) Path() string { return db.path }

// View calls fn with a transaction that reads. Other readers may go on at the
// same time, writers wait: fn should not take long. Errors of fn are returned
// as they are, others are *DBError or the context's.
func (db *DB) View(ctx context.Context, fn func(*Tx) error) error {
	err := db.with(ctx, false, func(b *bolt.DB, file io.ReaderAt) error {
		return b.View(func(btx *bolt.Tx) error {
			if err := checkTrees(btx, file); err != nil {
				return err
			}
			tx, err := newTx(db, btx)
			if err != nil {
				return err
			}
			return userError(fn(tx))
		})
	})
	if errors.Is(err, fs.ErrNotExist) {
		return fn(&Tx{db: db}) // no file yet
	}
	return db.wrap("read", err)
}

// Update calls fn with a transaction that reads and writes. It has the
// database for itself: fn must not wait for anything. What fn did is durable
// when Update returns nil; when fn returns an error, nothing of it happened.
// Errors are those of View.
func (db *DB) Update(ctx context.Context, fn func(*Tx) error) error {
	err := db.with(ctx, true, func(b *bolt.DB, file io.ReaderAt) error {
		var tx *Tx
		err := b.Update(func(btx *bolt.Tx) error {
			var err error
			if err = checkPages(btx); err != nil {
				return err
			}
			if err = checkTrees(btx, file); err != nil {
				return err
			}
			if tx, err = newTx(db, btx); err != nil {
				return err
			}
			if err := fn(tx); err != nil {
				return userError(err)
			}
			return tx.finish()
		})
		if err != nil && err != errUnchanged {
			return err
		}
		// Still under the lock, so that the mirror sees commits in their
		// order.
		db.updateMirror(b, &tx.changes)
		return nil
	})
	return db.wrap("write", err)
}

// with opens the file, calls fn with the database and the file, and closes both
// again.
func (db *DB) with(ctx context.Context, write bool, fn func(b *bolt.DB, file io.ReaderAt) error) (err error) {
	if db.o.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, db.o.Timeout, ErrLocked)
		defer cancel()
	}
	if write {
		if err := db.create(ctx); err != nil {
			return err
		}
	}

	// Bbolt believes what it reads: a damaged file makes it panic, or touch
	// memory beyond the end of the file. Both end here as an error. Closing
	// bbolt could then wait for ever for locks of its own, so it is left as
	// it is; but its mapping of the file would keep our lock.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	var file *os.File
	returned := false // neither by a panic nor by runtime.Goexit
	defer func() {
		if returned {
			return
		}
		p := recover()
		if file != nil {
			unlockFile(file)
			file.Close()
		}
		if p == nil {
			return
		}
		if !fromDamage(p) {
			panic(p)
		}
		err = fmt.Errorf("%w: %v", ErrCorrupt, p)
	}()
	b, err := bolt.Open(db.path, 0o600, &bolt.Options{
		ReadOnly:     !write,
		Timeout:      max(db.o.Timeout, time.Millisecond),
		NoStatistics: true,
		OpenFile: func(path string, flag int, mode os.FileMode) (*os.File, error) {
			f, err := os.OpenFile(path, flag&^os.O_CREATE, mode)
			if err != nil {
				return nil, err
			}
			if err := lockFile(ctx, f, write); err != nil {
				f.Close()
				if ctx.Err() != nil {
					return nil, context.Cause(ctx)
				}
				return nil, err
			}
			if info, err := f.Stat(); err == nil && info.Size() == 0 && !write {
				f.Close()
				return nil, fs.ErrNotExist // made by another program, not filled yet
			}
			if write {
				if err := checkFreelist(f); err != nil {
					unlockFile(f)
					f.Close()
					return nil, err
				}
			}
			file = f
			return f, nil
		},
	})
	if err == nil {
		err = fn(b, file)
		if cerr := b.Close(); err == nil {
			err = cerr
		}
	}
	returned = true
	return err
}

// create makes the file if it is not there. It is filled under another name
// and then linked to its own, so that nobody ever sees half a file.
func (db *DB) create(ctx context.Context) error {
	if _, err := os.Stat(db.path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	dir := filepath.Dir(db.path)
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(dir, ".nodedb-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	name := filepath.Join(tmp, "new")
	b, err := bolt.Open(name, 0o600, &bolt.Options{NoStatistics: true})
	if err != nil {
		return err
	}
	err = b.Update(initSchema)
	if cerr := b.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err := os.Link(name, db.path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(dir)
}

// callerError carries an error of the caller's function through bbolt, so that
// it can be told from the database's own. It has no Unwrap for that reason.
type callerError struct{ err error }

func (e *callerError) Error() string { return e.err.Error() }

func userError(err error) error {
	if err == nil {
		return nil
	}
	return &callerError{err}
}

// wrap makes a DBError of what did not come from the caller.
func (db *DB) wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	var c *callerError
	var d *DBError
	switch {
	case errors.As(err, &c):
		return c.err
	case errors.As(err, &d):
		return err
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, ErrLocked), errors.Is(err, berrors.ErrTimeout):
		return &DBError{Op: "lock", Path: db.path, Err: ErrLocked}
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrVersionMismatch), errors.Is(err, berrors.ErrChecksum),
		errors.Is(err, berrors.ErrInvalidMapping):
		err = fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return &DBError{Op: op, Path: db.path, Err: err}
}

// fromDamage reports whether a panic comes from a damaged file: it was raised
// in bbolt, or by an access to memory that the file does not back. Others are
// bugs, here or in the caller. To be called by the function that recovers.
func fromDamage(p any) bool {
	if _, ok := p.(interface{ Addr() uintptr }); ok {
		return true // see debug.SetPanicOnFault
	}
	var pcs [64]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(0, pcs[:])])
	for raised := false; ; {
		f, more := frames.Next()
		switch {
		case f.Function == "runtime.gopanic":
			raised = true
		case raised && !strings.HasPrefix(f.Function, "runtime."):
			return strings.HasPrefix(f.Function, "go.etcd.io/bbolt")
		}
		if !more {
			return false
		}
	}
}
