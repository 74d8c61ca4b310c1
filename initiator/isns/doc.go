// Package isns asks an iSNS server (RFC 4171) which targets there are.
//
// It knows the one request that discovery needs, DevAttrQry, and just enough
// of the protocol's attributes for its answer: the nodes that are targets, and
// the portal groups that say through which portals each of them is reached.
// Nothing is registered at the server. What a server shows depends on its
// discovery domains and on the name that asks.
//
// What comes from the network is bounded in size and checked; names and
// addresses are returned as they came, for the caller to judge.
package isns
