// Package nbd serves block devices over the Network Block Device protocol and
// attaches them to the Linux kernel's nbd driver.
//
// It has three parts, which can be used one without the other:
//
//   - The transmission phase. ServeConn reads requests from a stream socket,
//     gives them to a Backend and writes the replies. The peer may be the
//     kernel (one end of a socketpair) or any NBD client.
//   - The newstyle handshake. Server listens, negotiates an export by name and
//     then does what ServeConn does, for any number of connections.
//   - The kernel driver. Controller creates, lists, resizes, re-attaches and
//     removes /dev/nbdN over generic netlink; Device tunes its queue by sysfs.
//
// The protocol is the one described in doc/proto.md of the NBD project, the
// driver's interface is include/uapi/linux/nbd.h and nbd-netlink.h.
//
// # The path of a request
//
// One goroutine reads a socket. It takes as many requests as have come with
// one system call, submits each to the Backend, and calls Backend.Kick when
// none is left in memory or in the socket, so that the backend can send what it
// gathered in one go. The payload of a write is read into a pooled buffer that the backend uses
// as it is. Request structures belong to the connection and are used again, so
// that a request costs no allocation.
//
// Completion may come from any goroutine and in any order. Request.Complete
// appends the reply to a list; Conn.Flush writes what is on the list with one
// writev of headers and read data. Whoever finds the list idle writes it, the
// others only append (flat combining). A write never blocks the completing
// goroutine: what the socket does not take at once is left to a sender
// goroutine of the connection, so that a client that does not read its replies
// delays nobody but itself.
//
// What is in flight is bounded per connection, in requests and in bytes; at the
// bound the reader stops reading.
//
// # Concurrency
//
// ServeConn blocks until the connection ends and then has no goroutine left.
// Server.Close and Controller.Close wait for theirs. Methods may be called from
// any goroutine unless they say otherwise.
package nbd
