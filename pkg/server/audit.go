package server

import (
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	// auditWindow is what the bounds on lines are for.
	auditWindow = time.Second
	// auditLines are the lines of one kind in a window, and auditShare those about one
	// certificate, so that nobody drowns what is said about others.
	auditLines = 50
	auditShare = 5
)

// audit writes who was refused and who has changed what the cluster is. Refusals
// have bounds of their own, so that no number of them hides the rest.
type audit struct {
	logger   hclog.Logger
	left     prometheus.Counter
	refusals quota
	changes  quota
}

func newAudit(logger hclog.Logger, reg prometheus.Registerer) *audit {
	a := &audit{logger: logger, left: prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: "logd", Subsystem: "audit", Name: "lines_left_out_total",
		Help: "Audit lines that were not written, since there were too many.",
	})}
	if reg != nil {
		reg.MustRegister(a.left)
	}
	return a
}

// denied tells of a call or stream that was refused.
func (a *audit) denied(who caller, method string, err error) {
	if out, ok := a.refusals.take(time.Now(), who.identity.Name); ok {
		a.logger.Warn("denied", about(who, method, out, "why", err)...)
		return
	}
	a.left.Inc()
}

// allowed tells of a call that was let through.
func (a *audit) allowed(who caller, method string) {
	if out, ok := a.changes.take(time.Now(), who.identity.Name); ok {
		a.logger.Info("allowed", about(who, method, out)...)
		return
	}
	a.left.Inc()
}

// about are the pairs of a line. left_out is how many there would have been since
// the last one.
func about(who caller, method string, out uint64, more ...any) []any {
	pairs := append([]any{"method", method, "certificate", who.identity.String(), "principal", who.principal}, more...)
	if out > 0 {
		pairs = append(pairs, "left_out", out)
	}
	return pairs
}

// quota bounds lines, in windows that begin with a line.
type quota struct {
	mu    sync.Mutex
	until time.Time      // end of the window; guarded by mu
	lines int            // in it; guarded by mu
	by    map[string]int // those of a certificate's name, no more names than lines; guarded by mu
	out   uint64         // left out since the last line; guarded by mu
}

// take says whether a line about name may be written, and how many were left out
// before it.
func (q *quota) take(now time.Time, name string) (out uint64, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !now.Before(q.until) {
		q.until, q.lines, q.by = now.Add(auditWindow), 0, make(map[string]int)
	}
	if q.lines >= auditLines || q.by[name] >= auditShare {
		q.out++
		return 0, false
	}
	q.lines++
	q.by[name]++
	out, q.out = q.out, 0
	return out, true
}
