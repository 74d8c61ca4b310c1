// Command iscsiadm discovers iSCSI targets, keeps their records, and logs in
// to and out of them through iscsid. See iscsiadm(8).
package main

import (
	"os"

	"github.com/goiscsi/goiscsi/cmd/internal/iscsiadm"
)

func main() { os.Exit(iscsiadm.Main()) }
