package adminpage

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	tailFirst    = 10                     // records that are told first
	tailRate     = 20                     // records a second; what comes faster is counted
	tailLook     = 250 * time.Millisecond // between looks at where the log ends
	tailReadWait = 2 * time.Second        // for one record
	tailRest     = 2 * time.Second        // after one that could not be read
	tailPulse    = 15 * time.Second       // a sign of life so often
	valueMost    = 1024                   // bytes of a value, or key, that are shown
)

// ErrGone is a Tail's Read's for a record that retention has removed.
var ErrGone = errors.New("the record is gone")

// Tail is where the newest records are read.
type Tail struct {
	// Bounds are what the log has, [lowest, next), as far as is known without asking.
	Bounds func() (lowest, next uint64)
	// Read reads one record. An error other than ErrGone is for people.
	Read func(ctx context.Context, offset uint64) (Record, error)
}

// Record is a record to be shown.
type Record struct {
	Offset  uint64
	Time    time.Time
	Key     []byte
	Value   []byte
	Headers int // how many
}

// tailed is a Record as a listener gets it.
type tailed struct {
	Offset  uint64    `json:"offset"`
	Time    time.Time `json:"time"`
	Key     *content  `json:"key,omitempty"`
	Value   content   `json:"value"`
	Headers int       `json:"headers,omitempty"`
}

// content is bytes as text where they are, and else in base64.
type content struct {
	Text   string `json:"text"`
	Base64 bool   `json:"base64,omitempty"`
	Bytes  int    `json:"bytes"` // of all of it
	Cut    bool   `json:"cut,omitempty"`
}

func contentOf(b []byte) content {
	c := content{Bytes: len(b)}
	if len(b) > valueMost {
		b, c.Cut = b[:valueMost], true
		for range utf8.UTFMax - 1 { // not in the middle of a letter
			if r, n := utf8.DecodeLastRune(b); r != utf8.RuneError || n != 1 {
				break
			}
			b = b[:len(b)-1]
		}
	}
	if !isText(b) {
		c.Base64, c.Text = true, base64.StdEncoding.EncodeToString(b)
		return c
	}
	c.Text = string(b)
	return c
}

func isText(b []byte) bool {
	if !utf8.Valid(b) {
		return false
	}
	for _, r := range string(b) {
		if !unicode.IsPrint(r) && r != '\n' && r != '\t' && r != '\r' {
			return false
		}
	}
	return true
}

// tail answers /api/tail: the last few records, and those that come, as many as a
// person can follow.
func (p *Page) tail(w http.ResponseWriter, r *http.Request) {
	if p.cfg.Tail == nil {
		why := p.cfg.NoTail
		if why == "" {
			why = "records are not shown here"
		}
		http.Error(w, why, http.StatusNotFound)
		return
	}
	s, leave := p.enter(w, p.tails)
	if s == nil {
		return
	}
	defer leave()
	if !s.send([]byte("retry: 2000\n\n")) {
		return
	}
	t := &tailer{Tail: p.cfg.Tail, filled: time.Now(), tokens: tailRate}
	tick := time.NewTicker(tailLook)
	defer tick.Stop()
	quiet := time.Now()
	for {
		b, err := t.next(r.Context())
		switch {
		case err != nil:
			p.log.Error("a record cannot be encoded", "err", err)
			return
		case len(b) > 0:
			quiet = time.Now()
			if !s.send(b) {
				return
			}
		case time.Since(quiet) >= tailPulse:
			quiet = time.Now()
			if !s.send([]byte(": quiet\n\n")) {
				return
			}
		}
		select {
		case <-tick.C:
		case <-p.closed:
			s.send([]byte("event: end\ndata: {}\n\n"))
			return
		case <-r.Context().Done():
			return
		}
	}
}

// tailer is how far one listener is.
type tailer struct {
	*Tail
	begun  bool
	cursor uint64
	tokens float64
	filled time.Time
	rests  time.Time // no reading before
}

// next is what there is to be told now.
func (t *tailer) next(ctx context.Context) (b []byte, err error) {
	now := time.Now()
	t.tokens = min(tailRate, t.tokens+now.Sub(t.filled).Seconds()*tailRate)
	t.filled = now
	lowest, next := t.Bounds()
	if now.Before(t.rests) || next == 0 {
		return nil, nil
	}
	if !t.begun {
		t.begun, t.cursor = true, max(lowest, next-min(next, tailFirst))
	}
	from := max(t.cursor, lowest)
	if n := uint64(t.tokens); next > from && next-from > n {
		from = next - n
	}
	if skipped := from - t.cursor; skipped > 0 {
		if b, err = message(b, "skipped", 0, map[string]uint64{"count": skipped}); err != nil {
			return nil, err
		}
		t.cursor = from
	}
	for t.cursor < next && t.tokens >= 1 {
		read, cancel := context.WithTimeout(ctx, tailReadWait)
		rec, rerr := t.Read(read, t.cursor)
		cancel()
		switch {
		case errors.Is(rerr, ErrGone):
			b, err = message(b, "skipped", 0, map[string]uint64{"count": 1})
		case ctx.Err() != nil:
			return nil, nil //nolint:nilerr // there is nobody to tell
		case rerr != nil:
			t.rests = time.Now().Add(tailRest)
			return message(b, "trouble", 0, map[string]string{"text": rerr.Error()})
		default:
			shown := tailed{Offset: rec.Offset, Time: rec.Time, Value: contentOf(rec.Value), Headers: rec.Headers}
			if len(rec.Key) > 0 {
				key := contentOf(rec.Key)
				shown.Key = &key
			}
			b, err = message(b, "record", 0, shown)
		}
		if err != nil {
			return nil, err
		}
		t.cursor++
		t.tokens--
	}
	return b, nil
}
