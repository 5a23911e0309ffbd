package telemetry

import (
	"sync"
	"time"

	hclog "github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/codes"
)

// The bounds of an AccessLog's lines: so many a second of each method and code, and
// of what is more one in so many.
const (
	accessFirst = 10
	accessOneIn = 1000
	// accessKinds bounds the pairs of method and code that are told apart. Both are
	// bounded by their callers; this is for the one who forgets.
	accessKinds = 1024
)

// AccessLog writes a line a call at level debug, sampled so that no number of calls
// drowns the log: the first ten a second of each method and code, then one in a
// thousand. A line says how many of its kind were left out before it.
type AccessLog struct {
	log hclog.Logger

	mu    sync.Mutex
	kinds map[accessKind]*accessWindow // guarded by mu; at most accessKinds and one
}

type accessKind struct {
	method string
	code   codes.Code
}

// accessWindow is a second of one kind's calls.
type accessWindow struct {
	until time.Time
	calls int    // in it
	out   uint64 // left out since the last line
}

// Call is what a line tells. Method is bounded: one of those the server knows.
type Call struct {
	Method    string
	Code      codes.Code
	Took      time.Duration
	Principal string
	Upstream  string // the node that served it; empty on a node, or when there was none
}

// NewAccessLog makes one that writes to log.
func NewAccessLog(log hclog.Logger) *AccessLog {
	return &AccessLog{log: log, kinds: map[accessKind]*accessWindow{}}
}

// Enabled says whether anybody sees lines. Ask it before you gather what Note needs.
func (a *AccessLog) Enabled() bool { return a != nil && a.log.IsDebug() }

// Note writes the call's line, or counts it as left out.
func (a *AccessLog) Note(c Call) {
	out, ok := a.take(accessKind{c.Method, c.Code}, time.Now())
	if !ok {
		return
	}
	pairs := []any{"method", c.Method, "code", c.Code, "took", c.Took, "principal", c.Principal}
	if c.Upstream != "" {
		pairs = append(pairs, "upstream", c.Upstream)
	}
	if out > 0 {
		pairs = append(pairs, "left_out", out)
	}
	a.log.Debug("call", pairs...)
}

// take says whether a line of that kind may be written now, and how many were left
// out before it.
func (a *AccessLog) take(kind accessKind, now time.Time) (out uint64, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w := a.kinds[kind]
	if w == nil {
		if len(a.kinds) >= accessKinds {
			kind = accessKind{}
			w = a.kinds[kind]
		}
		if w == nil {
			w = &accessWindow{}
			a.kinds[kind] = w
		}
	}
	if !now.Before(w.until) {
		w.until, w.calls = now.Add(time.Second), 0
	}
	w.calls++
	if w.calls > accessFirst && (w.calls-accessFirst)%accessOneIn != 0 {
		w.out++
		return 0, false
	}
	out, w.out = w.out, 0
	return out, true
}
