package nodedb

import (
	"os"
	"path/filepath"
)

// tmpPrefix begins the names of files that are being filled.
const tmpPrefix = ".goiscsi-tmp-"

// writeFileAtomic replaces the file at path by one of mode 0600 with the given
// text. Readers see the old text or the new one, also after a crash. The new
// file is filled in tmpDir, which should be on the same file system: a process
// that is killed leaves it there, where it must not be taken for a record.
func writeFileAtomic(path string, text []byte, tmpDir string) error {
	f, err := os.CreateTemp(tmpDir, tmpPrefix+"*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	return syncDir(filepath.Dir(path))
}
