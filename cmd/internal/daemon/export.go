package daemon

import "github.com/goiscsi/goiscsi/nbd"

// exportOf describes a volume to NBD clients.
func exportOf(spec *attachSpec) *nbd.Export {
	g := &spec.geo
	return &nbd.Export{
		Size: uint64(g.size), Description: spec.label, BlockSize: uint32(g.blockSize),
		ReadOnly: g.readOnly, Flush: g.flush, FUA: g.fua && g.flush, Trim: g.trim, WriteZeroes: g.zeroes, Rotational: g.rotational,
		MultiConn: true, // a flush reaches the unit behind all connections
	}
}
