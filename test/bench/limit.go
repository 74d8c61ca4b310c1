package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/goiscsi/goiscsi/nbd"
	"github.com/goiscsi/goiscsi/pdu"
)

// echoArg makes bench the server of limit, a process of its own.
const echoArg = "-serve-echo"

// limit measures what the sockets themselves can do: requests and responses
// of the protocols' sizes, with nothing done for them.
func (b *bench) limit() error {
	t := table{title: "requests and responses over bare sockets"}
	for _, network := range []string{"tcp", "unix"} {
		header := pick(network == "tcp", [2]int{pdu.BHSLen, pdu.BHSLen}, [2]int{nbd.RequestSize, nbd.ReplySize})
		t.contenders = append(t.contenders, contender{pick(network == "tcp", "TCP", "unix socket"), func(w workload) (sample, error) {
			return b.measureEcho(network, header, w)
		}})
	}
	return b.table(t, workloads(b.quick))
}

// measureEcho starts a server, keeps the workload's depth of requests in
// flight and counts the responses.
func (b *bench) measureEcho(network string, header [2]int, w workload) (sample, error) {
	request, response := header[0], header[1]
	if strings.HasSuffix(w.rw, "write") {
		request += w.size
	} else {
		response += w.size
	}
	address := pick(network == "tcp", "127.0.0.1:0", filepath.Join(b.dir, "echo"))
	self, err := os.Executable()
	if err != nil {
		return sample{}, err
	}
	p, err := start(b.command(self, echoArg, network, address, strconv.Itoa(request), strconv.Itoa(response)))
	if err != nil {
		return sample{}, err
	}
	defer p.stop()
	var nc net.Conn
	err = p.await(func() error {
		line, _, ok := strings.Cut(p.output.String(), "\n")
		if !ok {
			return fmt.Errorf("no address yet")
		}
		nc, err = net.Dial(network, line)
		return err
	})
	if err != nil {
		return sample{}, err
	}
	defer nc.Close()
	begin := time.Now()
	n, err := drive(nc, request, response, w.depth, begin.Add(time.Duration(b.seconds*float64(time.Second))))
	if err != nil {
		return sample{}, err
	}
	elapsed := time.Since(begin)
	<-p.done // it ends with the connection
	return sample{float64(n) / elapsed.Seconds(), perIO(p.cmd, float64(n))}, nil
}

// drive is the client: it sends as many requests as responses have come.
func drive(nc net.Conn, request, response, depth int, until time.Time) (n int, err error) {
	out := make([]byte, request*depth)
	in := make([]byte, max(64<<10, response))
	// Both directions at once: else neither end would read while large
	// messages fill the sockets.
	credit := make(chan int, depth+1)
	sent := make(chan error, 1)
	go func() { // ends when credit is closed or the connection is
		for c := range credit {
			for more := true; more; {
				select {
				case m, ok := <-credit:
					c += m
					more = ok
				default:
					more = false
				}
			}
			if _, err := nc.Write(out[:request*c]); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	credit <- depth
	have := 0
	for time.Now().Before(until) {
		m, err := nc.Read(in)
		if err != nil {
			return n, err
		}
		have += m
		done := have / response
		have -= done * response
		n += done
		if done > 0 {
			credit <- done
		}
	}
	nc.Close()
	close(credit)
	<-sent // an error is that of the closed connection
	return max(n, 1), nil
}

// serveEcho is the server: one connection.
func serveEcho(args []string) error {
	if len(args) != 4 {
		return fmt.Errorf("%s wants network, address and two sizes", echoArg)
	}
	request, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	response, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	l, err := net.Listen(args[0], args[1])
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	nc, err := l.Accept()
	if err != nil {
		return err
	}
	l.Close()
	in := make([]byte, max(64<<10, request))
	out := make([]byte, max(response, 1<<20))
	have := 0
	for {
		m, err := nc.Read(in)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		have += m
		for n := 0; n < have/request; {
			batch := min(have/request-n, max(len(out)/response, 1))
			if _, err := nc.Write(out[:batch*response]); err != nil {
				return nil // the client has gone
			}
			n += batch
		}
		have %= request
	}
}
