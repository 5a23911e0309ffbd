package replica

import (
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// How many lines of one kind Raft logs: in a row, and then one in so long.
const (
	raftLogBurst = 5
	raftLogEvery = 10 * time.Second
	// raftLogKinds bounds the kinds that are told apart.
	raftLogKinds = 256
)

// raftLog is the way of Raft's own lines to the log, which may be on the disk that
// records are on. A peer that is down for a day would be complained about half a
// million times, and a node that is stopped complains about its own stop.
type raftLog struct {
	hclog.Logger
	stopping func() bool
	pace     *raftPace
}

func newRaftLog(to hclog.Logger, stopping func() bool) *raftLog {
	return &raftLog{Logger: to, stopping: stopping, pace: &raftPace{kinds: map[raftLine]*raftWindow{}}}
}

// Named implements hclog.Logger.
func (l *raftLog) Named(name string) hclog.Logger {
	return &raftLog{Logger: l.Logger.Named(name), stopping: l.stopping, pace: l.pace}
}

// With implements hclog.Logger.
func (l *raftLog) With(args ...any) hclog.Logger {
	return &raftLog{Logger: l.Logger.With(args...), stopping: l.stopping, pace: l.pace}
}

// Info implements hclog.Logger.
func (l *raftLog) Info(msg string, args ...any) { l.line(hclog.Info, msg, args) }

// Warn implements hclog.Logger.
func (l *raftLog) Warn(msg string, args ...any) { l.line(hclog.Warn, msg, args) }

// Error implements hclog.Logger.
func (l *raftLog) Error(msg string, args ...any) {
	level := hclog.Error
	if msg == "peer has newer term, stopping replication" {
		level = hclog.Info // so says every leader that hands over
	}
	l.line(level, msg, args)
}

func (l *raftLog) line(level hclog.Level, msg string, args []any) {
	if l.stopping() {
		l.Debug(msg, args...)
		return
	}
	out, ok := l.pace.take(raftLine{level, msg, peerOf(args)}, time.Now())
	if !ok {
		return
	}
	if out > 0 {
		args = append(args[:len(args):len(args)], "left_out", out)
	}
	l.Log(level, msg, args...)
}

// peerOf is the node that a line is about, "" if about none.
func peerOf(args []any) string {
	for i := 0; i+1 < len(args); i += 2 {
		switch args[i] {
		case "peer", "target", "server-id", "candidate", "from":
			return fmt.Sprint(args[i+1])
		}
	}
	return ""
}

// raftLine is what makes lines of one kind.
type raftLine struct {
	level hclog.Level
	msg   string
	peer  string
}

// raftPace counts the lines of each kind.
type raftPace struct {
	mu    sync.Mutex
	kinds map[raftLine]*raftWindow // guarded by mu; at most raftLogKinds and one a level
}

// raftWindow is a stretch of raftLogEvery that began with a line.
type raftWindow struct {
	until time.Time
	left  int // lines that may still be written in it
	out   int // lines left out since the last one that was written
}

// take says whether a line of that kind may be written now, and how many were left
// out before it.
func (p *raftPace) take(kind raftLine, now time.Time) (out int, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.kinds[kind]
	if w == nil {
		if len(p.kinds) >= raftLogKinds {
			p.forget(now)
		}
		if len(p.kinds) >= raftLogKinds {
			kind = raftLine{level: kind.level}
			w = p.kinds[kind]
		}
		if w == nil {
			w = &raftWindow{}
			p.kinds[kind] = w
		}
	}
	if !now.Before(w.until) {
		w.left = raftLogBurst
		if w.out > 0 {
			w.left = 1
		}
		w.until = now.Add(raftLogEvery)
	}
	if w.left == 0 {
		w.out++
		return 0, false
	}
	w.left--
	out, w.out = w.out, 0
	return out, true
}

// forget drops what has been quiet since its window ended; where lines were left out that
// nothing has told of, for six times as long. p.mu is held.
func (p *raftPace) forget(now time.Time) {
	maps.DeleteFunc(p.kinds, func(_ raftLine, w *raftWindow) bool {
		quiet := now.Sub(w.until)
		return quiet >= 6*raftLogEvery || quiet >= 0 && w.out == 0
	})
}
