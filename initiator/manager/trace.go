package manager

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/goiscsi/goiscsi/internal/errcode"
	"github.com/goiscsi/goiscsi/internal/version"
)

// TraceOptions say what Trace does.
type TraceOptions struct {
	// Duration is how long the trace goes on; 0 means until it is ended.
	Duration time.Duration
}

// TraceResult says how a trace went.
type TraceResult struct {
	PDUs    uint64 // written
	Dropped uint64 // not written, because the reader was too slow
}

// The trailers of an answer with a trace.
const (
	TrailerPDUs    = "Iscsid-Trace-Pdus"
	TrailerDropped = "Iscsid-Trace-Dropped"
)

// trace sends the request of Trace and copies the answer. Nothing bounds the
// silence of a trace: a session may have nothing to say.
func (c *Client) trace(ctx context.Context, sid int, o TraceOptions, w io.Writer) (*TraceResult, error) {
	const op = "trace"
	path := sessionPath(sid, "/trace")
	if o.Duration > 0 {
		path += "?duration=" + url.QueryEscape(o.Duration.String())
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://iscsid"+path, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	req.Header.Set("User-Agent", c.program+"/"+version.Version)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.connError(ctx, op, err)
	}
	defer resp.Body.Close()
	if err := c.checkVersion(resp.Header); err != nil {
		return nil, &ConnError{Op: op, Socket: c.socket, Code: errcode.InvalidMgmtReq, Err: err}
	}
	if resp.StatusCode != http.StatusOK {
		answer, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
		var e Error
		if err := json.Unmarshal(answer, &e); err != nil || e.Code == 0 {
			return nil, &ConnError{Op: op, Socket: c.socket, Code: errcode.ISCSIDComm, Err: fmt.Errorf("unintelligible answer with status %s", resp.Status)}
		}
		return nil, &e
	}
	body := &bodyReader{r: resp.Body}
	if _, err := io.Copy(w, body); err != nil {
		if body.err != nil {
			return nil, c.connError(ctx, op, err)
		}
		return nil, fmt.Errorf("%s: %w", op, err) // of w
	}
	var res TraceResult
	res.PDUs, err = strconv.ParseUint(resp.Trailer.Get(TrailerPDUs), 10, 64)
	if err == nil {
		res.Dropped, err = strconv.ParseUint(resp.Trailer.Get(TrailerDropped), 10, 64)
	}
	if err != nil {
		return nil, &ConnError{Op: op, Socket: c.socket, Code: errcode.ISCSIDComm, Err: fmt.Errorf("the trace has no end: %w", err)}
	}
	return &res, nil
}

// A bodyReader remembers an error of the connection, which io.Copy does not tell
// from one of the writer.
type bodyReader struct {
	r   io.Reader
	err error
}

func (b *bodyReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != nil && err != io.EOF {
		b.err = err
	}
	return n, err
}
