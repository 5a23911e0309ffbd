package events

import (
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// Severity says how much an event should worry.
type Severity string

// The severities.
const (
	Info    Severity = "info"
	Warning Severity = "warning"
	Error   Severity = "error"
)

// Event is one thing that happened.
type Event struct {
	ID       uint64    `json:"id"`
	Time     time.Time `json:"time"`
	Kind     string    `json:"kind"` // one of few words: leader, hold, ejected
	Severity Severity  `json:"severity"`
	Node     string    `json:"node_id,omitempty"` // the node it is about
	Text     string    `json:"text"`              // a sentence
	Count    uint64    `json:"count,omitempty"`   // of what the sentence is about
	Times    int       `json:"times,omitempty"`   // more than 1: so many events of the kind and node in one, of which this is the last
}

// Bounds of a Log.
const (
	kept     = 256                    // events
	textMost = 512                    // bytes of a text
	nameMost = 128                    // bytes of a kind or node
	window   = 900 * time.Millisecond // within it, events of one kind and node become one; who tells once a second is told each time
	keysMost = 256                    // kinds and nodes told apart within it
)

// Log is the newest events. All methods are safe for concurrent use, and on a nil Log
// they do nothing.
type Log struct {
	mu      sync.Mutex
	ring    [kept]Event       // event id is at id % kept; guarded by mu
	first   uint64            // id of the first event ever; guarded by mu, but never changed
	next    uint64            // id of the next; guarded by mu
	grew    chan struct{}     // closed and replaced, under mu, whenever next moves
	told    map[key]time.Time // when the last event of a key was; guarded by mu
	pending map[key]*Event    // what came within the window after it; guarded by mu
}

type key struct{ kind, node string }

// New makes a Log. Ids begin at the microseconds of now, so that those of a process are
// above those of the one before it.
func New() *Log {
	first := uint64(time.Now().UnixMicro())
	return &Log{first: first, next: first, grew: make(chan struct{}), told: map[key]time.Time{}, pending: map[key]*Event{}}
}

// Add takes in e, whose ID and Time it sets. Soon after another of its kind and node it
// is only counted, until Flush tells of all of those as one.
func (l *Log) Add(e Event) {
	if l == nil {
		return
	}
	e.Time = time.Now()
	e.Kind, e.Node, e.Text = clip(e.Kind, nameMost), clip(e.Node, nameMost), clip(e.Text, textMost)
	if e.Severity == "" {
		e.Severity = Info
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	k := key{e.Kind, e.Node}
	last, before := l.told[k]
	switch p := l.pending[k]; {
	case p != nil:
		e.Count += p.Count
		e.Times = p.Times + 1
		l.pending[k] = &e
	case before && e.Time.Sub(last) < window:
		e.Times = 1
		l.pending[k] = &e
	default:
		l.put(k, e)
	}
}

// Addf is Add for an event with a text alone.
func (l *Log) Addf(kind string, severity Severity, node, format string, args ...any) {
	if l == nil {
		return
	}
	l.Add(Event{Kind: kind, Severity: severity, Node: node, Text: fmt.Sprintf(format, args...)})
}

// put gives e its id. mu is held.
func (l *Log) put(k key, e Event) {
	if len(l.told) < keysMost {
		l.told[k] = e.Time
	}
	if e.Times == 1 {
		e.Times = 0
	}
	e.ID = l.next
	l.ring[l.next%kept] = e
	l.next++
	close(l.grew)
	l.grew = make(chan struct{})
}

// Flush tells of what Add only counted, once a little time has passed. It is called
// about once a second.
func (l *Log) Flush() {
	if l == nil {
		return
	}
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, at := range l.told {
		if now.Sub(at) < window {
			continue
		}
		delete(l.told, k)
		if p := l.pending[k]; p != nil {
			delete(l.pending, k)
			l.put(k, *p)
		}
	}
}

// Changes is closed when there is more than now. Take it first, then Since: nothing is
// missed. On a nil Log it never is.
func (l *Log) Changes() <-chan struct{} {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.grew
}

// Since answers the events with ids above id, oldest first, and how many of them are
// gone already. An id that this Log has not given yet, such as one of a process
// with a clock ahead, is as good as none: all there are.
func (l *Log) Since(id uint64) (es []Event, gone uint64) {
	if l == nil {
		return nil, 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	oldest := l.first
	if l.next-l.first > kept {
		oldest = l.next - kept
	}
	from := oldest
	switch {
	case id >= l.next || id < l.first: // of another process, or of none
	case id+1 < oldest:
		gone = oldest - (id + 1)
	default:
		from = id + 1
	}
	for i := from; i < l.next; i++ {
		es = append(es, l.ring[i%kept])
	}
	return es, gone
}

// Last answers the newest n events, oldest first.
func (l *Log) Last(n int) []Event {
	es, _ := l.Since(0)
	return es[max(0, len(es)-n):]
}

// clip is the beginning of s, as text.
func clip(s string, most int) string {
	if len(s) > most {
		s = s[:most]
		for !utf8.ValidString(s) && len(s) > most-utf8.UTFMax {
			s = s[:len(s)-1]
		}
		s += "…"
	}
	return strings.ToValidUTF8(s, "�")
}
