package control

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/goiscsi/goiscsi/initiator/manager"
	"github.com/goiscsi/goiscsi/internal/errcode"
)

// traceWriteTime bounds the wait for a client that does not read its trace, so
// that a stopped one does not keep the daemon from ending.
const traceWriteTime = 30 * time.Second

// trace answers with PDUs while they come. What it writes can hold the contents
// of disks, so it is for administrators.
func (s *Server) trace(w http.ResponseWriter, r *http.Request) {
	if !s.admitted(w, r, accessAdmin) {
		return
	}
	sid, err := sidOf(r)
	if err != nil {
		writeError(w, err)
		return
	}
	var o TraceOptions
	if text := r.URL.Query().Get("duration"); text != "" {
		if o.Duration, err = time.ParseDuration(text); err != nil || o.Duration <= 0 {
			writeError(w, Errorf(errcode.Inval, "parameter duration=%q is not a time above 0", text))
			return
		}
	}
	out := &streamWriter{w: w, rc: http.NewResponseController(w)}
	// When the client goes or the server stops, a write does not wait any longer.
	stop := context.AfterFunc(r.Context(), func() { _ = out.rc.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	res, err := s.svc.Trace(r.Context(), sid, o, out)
	switch {
	case err == nil:
		w.Header().Set(manager.TrailerPDUs, strconv.FormatUint(res.PDUs, 10))
		w.Header().Set(manager.TrailerDropped, strconv.FormatUint(res.Dropped, 10))
	case !out.begun:
		writeError(w, err)
	default:
		// Too late to say so: without an end, the client knows that something is wrong.
		s.o.Logger.Debug("trace", "sid", sid, "err", err)
		panic(http.ErrAbortHandler)
	}
}

func (s *Server) endTrace(ctx context.Context, r *http.Request) (int, any, error) {
	sid, err := sidOf(r)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusNoContent, nil, s.svc.EndTrace(ctx, sid)
}

// A streamWriter sends what is written at once. The answer begins with the
// first write.
type streamWriter struct {
	w     http.ResponseWriter
	rc    *http.ResponseController
	begun bool
}

var _ io.Writer = (*streamWriter)(nil)

// Write implements io.Writer.
func (s *streamWriter) Write(p []byte) (int, error) {
	if !s.begun {
		s.begun = true
		h := s.w.Header()
		h.Set("Content-Type", "application/x-pcapng")
		h.Set("Trailer", manager.TrailerPDUs+", "+manager.TrailerDropped)
		s.w.WriteHeader(http.StatusOK)
	}
	// A handler in a test may not know deadlines.
	_ = s.rc.SetWriteDeadline(time.Now().Add(traceWriteTime))
	n, err := s.w.Write(p)
	if err != nil {
		return n, err
	}
	return n, s.rc.Flush()
}
