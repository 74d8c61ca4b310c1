// Package attach offers disks of package initiator to other programs over NBD.
package attach
