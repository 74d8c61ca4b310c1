// Command nbdfile copies a file to an NBD export on a unix socket or back:
//
//	nbdfile put SOCKET FILE
//	nbdfile get SOCKET FILE
//
// It is what make demo uses on a machine that has neither a kernel with nbd
// nor any NBD client: the demo needs nothing installed. It speaks the fixed
// newstyle handshake and simple replies, one request at a time.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/goiscsi/goiscsi/test/faults/checker"
)

// blockSize is what each request moves.
const blockSize = 1 << 20

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "nbdfile:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 3 || (args[0] != "put" && args[0] != "get") {
		return errors.New("usage: nbdfile put|get SOCKET FILE")
	}
	export, err := checker.OpenExport(args[1])
	if err != nil {
		return err
	}
	if args[0] == "put" {
		err = put(export, args[2])
	} else {
		err = get(export, args[2])
	}
	return errors.Join(err, export.Close())
}

// put copies a file to the beginning of the export and has it written out.
func put(export *checker.Export, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() > export.Size() {
		return fmt.Errorf("%s is larger than the export (%d bytes)", path, export.Size())
	}
	if err := copyAll(io.NewOffsetWriter(export, 0), f); err != nil {
		return err
	}
	return export.Flush()
}

// get copies the whole export to a file.
func get(export *checker.Export, path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(copyAll(f, io.NewSectionReader(export, 0, export.Size())), f.Close())
}

// copyAll copies in blocks of blockSize: io.Copy alone would leave their size
// to the two sides.
func copyAll(w io.Writer, r io.Reader) error {
	_, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, make([]byte, blockSize))
	return err
}
