package replica

import (
	"bytes"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// refusedPause is how long a leader waits before it offers records again to a
	// node that refuses them.
	refusedPause = time.Second
	// diskRetryAfter is the hint to a producer that a disk keeps out.
	diskRetryAfter = time.Second
)

// lowMark ends the address in the header of an answer to an AppendEntries when
// the node that gives it is below its reserve. The library reads no header of an
// answer. So every heartbeat brings news, and a leader knows how its voters stand
// as soon as it leads.
var lowMark = []byte("\x00low")

// markLow marks an answer, and makes an RPC error of one that refuses entries
// only because the disk is full: told so by Success=false, a leader would go back
// in its log, entry by entry, for nothing.
func markLow(resp *raft.RPCResponse, full bool) {
	r, ok := resp.Response.(*raft.AppendEntriesResponse)
	if !ok || resp.Error != nil {
		return
	}
	if full && !r.Success {
		resp.Error = errRefused
		return
	}
	r.RPCHeader.Addr = append(bytes.Clone(r.RPCHeader.Addr), lowMark...)
}

// isRefusal says whether a peer refuses entries for its disk.
func isRefusal(err error) bool {
	return err != nil && strings.HasPrefix(err.Error(), errRefused.Error())
}

// voters is what a leader has heard of the others: of their disks, and how far they are.
type voters struct {
	anyLow atomic.Bool // some peer in m is low: what every Submit looks at

	mu    sync.Mutex
	m     map[string]voter // by id; guarded by mu
	asked chan struct{}    // closed by the next answer; nil: nobody waits; guarded by mu
}

type voter struct {
	low  bool
	end  uint64    // the last entry of ours that it is known to have
	last time.Time // when it last answered
}

// heard takes note of how a peer answered an AppendEntries.
func (v *voters) heard(id string, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse, err error) {
	refused := isRefusal(err)
	if err != nil && !refused {
		return
	}
	low := refused || bytes.HasSuffix(resp.Addr, lowMark)
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.m == nil {
		v.m = make(map[string]voter)
	}
	was := v.m[id]
	v.m[id] = voter{low: low, end: endOf(was.end, req, resp, err), last: time.Now()}
	if v.asked != nil {
		close(v.asked)
		v.asked = nil
	}
	if was.low == low {
		return
	}
	any := false
	for _, p := range v.m {
		any = any || p.low
	}
	v.anyLow.Store(any)
}

// endOf is the last entry of ours that a peer is known to have after its answer, where it
// was known to have those up to before. A heartbeat tells of the peer's log how long it
// was, and not whose entries they are.
func endOf(before uint64, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse, err error) uint64 {
	switch {
	case err != nil:
		return before
	case !resp.Success:
		return 0
	case isHeartbeat(req):
		return min(before, resp.LastLog)
	}
	return req.PrevLogEntry + uint64(len(req.Entries))
}

// of is what is known of a peer.
func (v *voters) of(id string) voter {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.m[id]
}

// news is closed by the next answer of any peer.
func (v *voters) news() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.asked == nil {
		v.asked = make(chan struct{})
	}
	return v.asked
}

// stand says of a peer whether it is low, and whether it has answered within
// limit.
func (v *voters) stand(id string, limit time.Duration) (low, answers bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	p := v.m[id]
	return p.low, time.Since(p.last) < limit
}

// room refuses a produce when too many disks are low for it to be committed
// safely: unless a majority of voters, this node included, is above its reserve.
// As long as nobody is known to be low nobody is refused, whoever is down: that
// is Raft's affair. Once somebody is, one that does not answer is no help.
func (e *engine) room() error {
	self := e.r.reserve.low()
	if !e.r.rules.reserve || !self && !e.voters.anyLow.Load() {
		return nil
	}
	refusal := &DiskLowError{RetryAfter: diskRetryAfter}
	voters, above := 0, 0
	for _, p := range e.peers() {
		if !p.Voter {
			continue
		}
		voters++
		low, answers := self, true
		if p.ID != e.r.cfg.ID {
			low, answers = e.voters.stand(p.ID, e.silence())
		}
		switch {
		case low:
			refusal.Low = append(refusal.Low, p.ID)
		case !answers:
			refusal.Silent = append(refusal.Silent, p.ID)
		default:
			above++
		}
	}
	if !self && (len(refusal.Low) == 0 || above > voters/2) {
		return nil
	}
	e.r.metrics.diskRefused.Inc()
	return refusal
}

// silence is after how long without an answer a voter's disk is unknown.
func (e *engine) silence() time.Duration { return max(2*time.Second, 4*e.r.cfg.Heartbeat) }

// withoutRecords is what remains to be done for a peer that refuses records: it
// gets what comes before them, and the commit index, so that it applies the
// retention it has. Told of the failure, Raft would wait longer and longer; told
// nothing, it would come back at once. It reads the struct it passed, and so
// knows what was left out.
func (t *transport) withoutRecords(req *raft.AppendEntriesRequest, call func() error) error {
	timer := time.NewTimer(refusedPause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.ctx.Done():
		return errTransportClosed
	}
	n := 0
	for n < len(req.Entries) && !hasRecords(req.Entries[n]) {
		n++
	}
	req.Entries = req.Entries[:n]
	err := t.again(call)
	if isRefusal(err) && n > 0 { // there is no room for these either
		req.Entries = nil
		err = t.again(call)
	}
	return err
}
