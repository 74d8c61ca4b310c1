// Command iscsi-iname prints a new name for an iSCSI initiator. See
// iscsi-iname(8).
package main

import (
	"fmt"
	"io"
	"os"

	"github.com/goiscsi/goiscsi/cmd/internal/getopt"
	"github.com/goiscsi/goiscsi/internal/iname"
)

const program = "iscsi-iname"

// options are those of open-iscsi's program.
var options = getopt.Table{
	{Short: 'h', Long: "help", Help: "show this help"},
	{Short: 'p', Long: "prefix", Arg: "prefix", Help: "set IQN prefix"},
	{Short: 'g', Long: "generate-iname-prefix", Help: "generate the InitiatorName= prefix"},
}

func main() { os.Exit(run(os.Args, os.Stdout, os.Stderr)) }

// run is the program with its world as arguments; it returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	name, before := program, ""
	prefix := iname.DefaultPrefix
	var items []getopt.Item
	if len(args) > 0 {
		name = args[0]
		items, _ = options.Translate(args[1:])
	}
	for _, it := range items {
		switch {
		case it.Err != nil:
			fmt.Fprintf(stderr, "%s: %s\n", name, it.Err.Message)
			usage(stderr)
			return 1
		case it.Option.Short == 'h':
			usage(stderr)
			return 0
		case it.Option.Short == 'g':
			before = "InitiatorName="
		default:
			prefix = it.Value
		}
	}
	n, err := iname.Generate(prefix)
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", program, err)
		usage(stderr)
		return 1
	}
	if _, err := fmt.Fprintf(stdout, "%s%s\n", before, n); err != nil {
		return 1
	}
	return 0
}

// usage prints open-iscsi's help, to standard error as it does.
func usage(w io.Writer) {
	fmt.Fprintf(w, `Usage: %s [OPTIONS]
Where OPTIONS are from:
    -p/--prefix <prefix>          -- set IQN prefix [%s]
    -g/--generate-iname-prefix    -- generate the InitiatorName= prefix
where <prefix> has max length of %d
`, program, iname.DefaultPrefix, iname.MaxPrefixLen)
}
