// Package rawsock makes the system calls of a TCP socket that the throughput of a
// connection hangs on: scattered reads and gathered writes that allocate nothing
// and need not wait.
//
// They are raw ones, of which the scheduler is not told: the socket is
// non-blocking, so none takes longer than its copying. Told of them, it hands the
// processor on to another thread whenever one takes more than 20 µs, as waking the
// peer does, and the goroutine has to get it back afterwards. Who has to wait
// does so in the runtime's poller; deadlines and Close of the net.Conn work as
// they always do.
package rawsock

import "errors"

// ErrWouldBlock says that a read that was not to wait found nothing.
var ErrWouldBlock = errors.New("nothing to read")
