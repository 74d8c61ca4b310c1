package nodedb

import (
	"context"
	"net/netip"
	"slices"

	"github.com/goiscsi/goiscsi/internal/portal"
)

// A Match says which node records are meant. Fields that are empty or 0 match
// all.
type Match struct {
	Target  string // exactly
	Address string // the same text, name or address; see Resolve for DNS
	Port    int    // TCP port, 0 for any
	Iface   string // exactly

	// resolved holds other addresses that DNS says are the same host.
	resolved []string
}

// MatchKey returns a Match for one record.
func MatchKey(k NodeKey) Match {
	return Match{Target: k.Target, Address: k.Address, Port: k.Port, Iface: k.Iface}
}

// All reports whether m matches every record.
func (m Match) All() bool {
	return m.Target == "" && m.Address == "" && m.Port == 0 && m.Iface == ""
}

// Matches reports whether a record with key k is meant. It is what matches
// sessions by the portal of their record, too.
func (m Match) Matches(k NodeKey) bool {
	return m.matchesButAddress(k) &&
		(m.Address == "" || portal.Same(m.Address, k.Address) || slices.Contains(m.resolved, k.Address))
}

func (m Match) matchesButAddress(k NodeKey) bool {
	return (m.Target == "" || m.Target == k.Target) &&
		(m.Port == 0 || m.Port == k.Port) &&
		(m.Iface == "" || m.Iface == k.Iface)
}

// A Resolver looks host names up; *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Resolve returns m such that it also matches those of keys whose address is
// another name of the host that m names, as open-iscsi matches portals: if the
// texts differ, both are looked up. Only names that could make a difference
// are looked up, each once. A name that does not resolve matches nothing
// else; the error is the context's.
func (m Match) Resolve(ctx context.Context, r Resolver, keys []NodeKey) (Match, error) {
	if m.Address == "" {
		return m, nil
	}
	known := make(map[string][]netip.Addr)
	lookup := func(host string) []netip.Addr {
		if addrs, ok := known[host]; ok {
			return addrs
		}
		addrs := hostAddrs(ctx, r, host)
		known[host] = addrs
		return addrs
	}
	_, err := netip.ParseAddr(m.Address)
	literal := err == nil
	for _, k := range keys {
		if !m.matchesButAddress(k) || m.Matches(k) {
			continue
		}
		if _, err := netip.ParseAddr(k.Address); err == nil && literal {
			continue // two addresses, not the same
		}
		for _, a := range lookup(k.Address) {
			if slices.Contains(lookup(m.Address), a) {
				m.resolved = append(slices.Clip(m.resolved), k.Address)
				break
			}
		}
		if err := ctx.Err(); err != nil {
			return m, err
		}
	}
	return m, nil
}

// hostAddrs returns the addresses of a host, be it a name or an address.
func hostAddrs(ctx context.Context, r Resolver, host string) []netip.Addr {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a.Unmap()}
	}
	addrs, err := r.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	return addrs
}

// Resolve is [Match.Resolve] with the keys of the database. Names are looked
// up while no lock is held.
func (db *DB) Resolve(ctx context.Context, m Match, r Resolver) (Match, error) {
	if m.Address == "" {
		return m, nil
	}
	var keys []NodeKey
	err := db.View(ctx, func(tx *Tx) error {
		for ref := range tx.refs(m) {
			keys = append(keys, ref.NodeKey)
		}
		return nil
	})
	if err != nil {
		return m, err
	}
	return m.Resolve(ctx, r, keys)
}
