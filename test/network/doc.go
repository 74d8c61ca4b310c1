// Package network tests what needs a network of more than a loopback device,
// or servers of others: interfaces to bind to, link-local addresses, an iSNS
// server, a target that asks for a password before it tells its targets. The
// tests have the build tag guest:
//
//	make guest-test PKG=./test/network
package network
