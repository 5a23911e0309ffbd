package replica

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// retryAfter is the hint to a producer that met the byte limit: by then some of
// the entries in flight have been synced and replicated.
const retryAfter = 50 * time.Millisecond

// batcher is group commit. One goroutine (propose) packs what waits into
// entries and proposes them in order; another (collect) waits for them, in the
// same order. While entries are being synced the next one fills.
type batcher struct {
	apply    func(payload []byte) raft.ApplyFuture
	notLead  func() error // the error for what was certainly not appended
	maxBytes int64
	metrics  *metrics
	bugs     bugs          // of tests
	next     func() uint64 // for bugs: where the log seems to end

	mu     sync.Mutex
	queue  []*Pending    // waiting, in Submit's order; guarded by mu
	bytes  int64         // of batches waiting or in flight; guarded by mu
	closed bool          // guarded by mu; once true nothing is queued
	idle   chan struct{} // closed when bytes is 0; nil when nobody waits; guarded by mu

	work   chan struct{}  // capacity 1: "queue is not empty"
	slots  chan struct{}  // capacity: entries in flight
	flight chan *proposal // capacity: entries in flight, so sending never blocks
	done   chan struct{}  // closed when Raft is gone; ends its unanswered futures
	stop   chan struct{}  // closed after done
}

// proposal is an entry in flight. Its batches are groups[0] pendings in the
// first, groups[1] in the second, and so on.
type proposal struct {
	future  raft.ApplyFuture
	taken   bool // Raft took it, as far as can be known
	waiting []*Pending
	groups  []int
	guessed []outcome // of planted bugs
	acked   bool      // likewise
}

func newBatcher(apply func([]byte) raft.ApplyFuture, notLead func() error, maxBytes int64, done, stop chan struct{}, m *metrics) *batcher {
	return &batcher{
		apply: apply, notLead: notLead, maxBytes: maxBytes, metrics: m,
		work:   make(chan struct{}, 1),
		slots:  make(chan struct{}, MaxEntriesInFlight),
		flight: make(chan *proposal, MaxEntriesInFlight),
		done:   done,
		stop:   stop,
	}
}

// submit queues a batch. It never waits.
func (b *batcher) submit(batch Batch) (*Pending, error) {
	p := &Pending{
		batch: batch,
		born:  time.Now(),
		size:  int64(len(batch.Records) + headerSize(batch.Key != [16]byte{})),
		done:  make(chan struct{}),
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, b.notLead()
	}
	if b.bytes > 0 && b.bytes+p.size > b.maxBytes {
		b.metrics.overloaded.Inc()
		return nil, &OverloadedError{RetryAfter: retryAfter}
	}
	b.bytes += p.size
	b.metrics.inFlight.Set(float64(b.bytes))
	b.queue = append(b.queue, p)
	if len(b.queue) == 1 {
		select {
		case b.work <- struct{}{}:
		default:
		}
	}
	return p, nil
}

// propose runs until stop is closed.
func (b *batcher) propose() {
	defer close(b.flight)
	for {
		select {
		case <-b.work:
		case <-b.stop:
			b.close()
			return
		}
		for more := true; more; {
			select {
			case b.slots <- struct{}{}: // a slot first: what comes meanwhile fills the entry
			case <-b.stop:
				b.close()
				return
			}
			var pr *proposal
			if pr, more = b.take(); pr == nil {
				<-b.slots
				break
			}
			payload := pr.encode()
			b.metrics.entryBytes.Observe(float64(len(payload)))
			if b.bugs.early || b.bugs.ackProposed {
				pr.guess(b.next())
			}
			pr.proposing()
			pr.future = b.apply(payload)
			pr.taken = endWith(pr.future, b.done)
			if pr.acked = b.bugs.ackProposed && pr.taken; pr.acked {
				pr.decide(pr.guessed)
			}
			b.flight <- pr
		}
	}
}

// collect runs until propose has ended and every proposal is decided.
func (b *batcher) collect() {
	for pr := range b.flight {
		err := pr.future.Error()
		<-b.slots
		var size int64
		for _, p := range pr.waiting {
			size += p.size
		}
		// Released before the waiters know, so that what they send next fits.
		b.release(size)
		if pr.acked {
			continue
		}
		if err == nil {
			if a, ok := pr.future.Response().(*appliedData); ok {
				if b.bugs.early {
					a.outcomes = pr.guessed
				}
				pr.committed(pr.future.Index(), a.term)
				pr.decide(a.outcomes)
				b.metrics.count(pr)
				continue
			}
		}
		switch {
		case notSent(err), errors.Is(err, raft.ErrRaftShutdown) && !pr.taken:
			err = b.notLead()
		case errors.Is(err, raft.ErrLeadershipTransferInProgress):
			err = ErrDraining
		default:
			err = ErrOutcomeUnknown
			b.metrics.unknown.Add(float64(len(pr.waiting)))
		}
		for _, p := range pr.waiting {
			p.fail(err)
		}
	}
}

// close refuses further batches and ends those that wait: none was proposed.
func (b *batcher) close() {
	b.mu.Lock()
	b.closed = true
	queue := b.queue
	b.queue = nil
	b.mu.Unlock()
	for _, p := range queue {
		b.release(p.size)
		p.fail(b.notLead())
	}
}

func (b *batcher) release(size int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bytes -= size
	b.metrics.inFlight.Set(float64(b.bytes))
	if b.bytes == 0 && b.idle != nil {
		close(b.idle)
		b.idle = nil
	}
}

// drained waits until no batch waits or is in flight.
func (b *batcher) drained(ctx context.Context) error {
	b.mu.Lock()
	if b.bytes == 0 {
		b.mu.Unlock()
		return nil
	}
	if b.idle == nil {
		b.idle = make(chan struct{})
	}
	idle := b.idle
	b.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (b *batcher) load() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bytes
}

// mergeable says that a batch carries nothing that must stay its own.
func mergeable(b *Batch) bool { return b.Producer == [16]byte{} && b.Key == [16]byte{} }

// take removes the batches of the next entry from the queue: as many as fit,
// at least one. more says that others wait.
func (b *batcher) take() (pr *proposal, more bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.queue) == 0 {
		return nil, false
	}
	var size int64
	n := 0
	for n < len(b.queue) && (n == 0 || size+b.queue[n].size <= EntryBytes) {
		size += b.queue[n].size
		n++
	}
	pr = &proposal{waiting: b.queue[:n:n]}
	b.queue = b.queue[n:]
	if len(b.queue) == 0 {
		b.queue = nil // let go of the array that waiting still uses
	}
	last := false
	for _, p := range pr.waiting {
		m := mergeable(&p.batch)
		if m && last {
			pr.groups[len(pr.groups)-1]++
		} else {
			pr.groups = append(pr.groups, 1)
		}
		last = m
	}
	return pr, len(b.queue) > 0
}

// encode builds the entry: one allocation, one copy of the records.
func (pr *proposal) encode() []byte {
	size := 1 + binary.MaxVarintLen32
	for _, p := range pr.waiting {
		size += int(p.size)
	}
	out := append(make([]byte, 0, size), kindData)
	out = binary.AppendUvarint(out, uint64(len(pr.groups)))
	rest := pr.waiting
	for _, n := range pr.groups {
		group := rest[:n]
		rest = rest[n:]
		first := &group[0].batch
		h := header{
			producer: first.Producer, owner: first.Owner, epoch: first.Epoch,
			firstSeq: first.FirstSeq, key: first.Key, timestamp: first.Timestamp,
		}
		length := 0
		for _, p := range group {
			h.count += p.batch.Count
			h.timestamp = max(h.timestamp, p.batch.Timestamp)
			length += len(p.batch.Records)
		}
		out = appendHeader(out, &h, length)
		for _, p := range group {
			out = append(out, p.batch.Records...)
			p.batch.Records = nil
		}
	}
	return out
}

// proposing notes the time for those batches that are traced.
func (pr *proposal) proposing() {
	for _, p := range pr.waiting {
		if p.batch.Commit != nil {
			p.batch.Commit.Proposed = time.Now()
		}
	}
}

// committed is told once the entry is applied, and before anybody hears of it.
func (pr *proposal) committed(index, term uint64) {
	for _, p := range pr.waiting {
		if c := p.batch.Commit; c != nil {
			c.Visible, c.Index, c.Term, c.Batches = time.Now(), index, term, len(pr.waiting)
		}
	}
}

// decide hands the outcomes of an applied entry to its pendings.
func (pr *proposal) decide(outcomes []outcome) {
	rest := pr.waiting
	for i, n := range pr.groups {
		var base uint64
		for _, p := range rest[:n] {
			p.decide(outcomes[i], base)
			base += uint64(p.batch.Count)
		}
		rest = rest[n:]
	}
}
