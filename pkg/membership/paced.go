package membership

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"time"
)

// How many complaints of memberlist are logged.
const (
	pacedBurst = 50          // at once
	pacedEvery = time.Second // one more each
)

// paced is the way of memberlist's lines to the log. Anybody can send a packet
// that it complains about, and the log may be on the disk that records are on.
type paced struct {
	w io.Writer

	mu     sync.Mutex
	left   int       // complaints that may be written; guarded by mu
	filled time.Time // when left was last added to; guarded by mu
	missed int       // complaints not written since the last one that was; guarded by mu
	over   bool      // end was called; guarded by mu
}

func newPaced(w io.Writer) *paced { return &paced{w: w, left: pacedBurst, filled: time.Now()} }

// end has no complaint pass any more.
func (p *paced) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
}

// Write takes one line. Lines that are no complaints of memberlist's all pass, but
// that of a stop which is no leave: a node that is restarted should not leave.
func (p *paced) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte("serf: Shutdown without a Leave")) {
		return len(line), nil
	}
	if !bytes.Contains(line, []byte("memberlist:")) || !bytes.Contains(line, []byte("[ERR")) && !bytes.Contains(line, []byte("[WARN")) {
		return p.w.Write(line)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return len(line), nil
	}
	if more := int(time.Since(p.filled) / pacedEvery); more > 0 {
		p.left = min(p.left+more, pacedBurst)
		p.filled = p.filled.Add(time.Duration(more) * pacedEvery)
	}
	if p.left == 0 {
		p.missed++
		return len(line), nil
	}
	p.left--
	if p.missed > 0 {
		if _, err := fmt.Fprintf(p.w, "[WARN] memberlist: %d lines like the next were left out\n", p.missed); err != nil {
			return 0, err
		}
		p.missed = 0
	}
	return p.w.Write(line)
}
