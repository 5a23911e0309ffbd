package forward

import (
	"errors"
	"sync"
)

// Why a record is not let in.
var (
	errFull  = errors.New("the proxy holds as much as it may")
	errShare = errors.New("this client holds as much as is left for all the others")
)

// load is a number of records and their bytes.
type load struct {
	count int
	bytes int64
}

func (l *load) add(m load) { l.count += m.count; l.bytes += m.bytes }
func (l *load) sub(m load) { l.count -= m.count; l.bytes -= m.bytes }

// limiter bounds what the proxy holds for its producing clients: records without
// an outcome.
//
// One client may hold as much as is still free, and no more: alone half of the
// bounds, two that flood it a third each, and there is always room for one more.
// (Dynamic thresholds: Choudhury and Hahne, IEEE/ACM ToN 1998, with factor 1.)
// Streams share half of the bounds in the same way: they can be made to wait, so
// they leave room for calls, which cannot.
type limiter struct {
	most load

	mu      sync.Mutex
	all     load          // guarded by mu
	streams load          // of all; guarded by mu
	opened  chan struct{} // closed when something is released; nil when nobody waits; guarded by mu
}

func newLimiter(most load) *limiter { return &limiter{most: most} }

// take finds a place for one record of n bytes of a client that has some already,
// or says errFull or errShare. One record always fits where there is none.
func (l *limiter) take(has load, n int, stream bool) error {
	one := load{1, int64(n)}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := fits(has, one, l.all, l.most); err != nil {
		return err
	}
	if stream {
		if err := fits(has, one, l.streams, load{(l.most.count + 1) / 2, l.most.bytes / 2}); err != nil {
			return err
		}
		l.streams.add(one)
	}
	l.all.add(one)
	return nil
}

// fits says whether one more fits beside what all have, and whether who has so much
// already may have it.
func fits(has, one, all, most load) error {
	free := most
	free.sub(all)
	switch {
	case all.count == 0:
	case free.count < 1 || free.bytes < one.bytes:
		return errFull
	case free.count <= has.count || free.bytes-one.bytes < has.bytes:
		return errShare
	}
	return nil
}

// release gives places back, those of streams among them.
func (l *limiter) release(all, streams load) {
	if all == (load{}) {
		return
	}
	l.mu.Lock()
	l.all.sub(all)
	l.streams.sub(streams)
	opened := l.opened
	l.opened = nil
	l.mu.Unlock()
	if opened != nil {
		close(opened)
	}
}

// released is closed when something is released from now on.
func (l *limiter) released() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.opened == nil {
		l.opened = make(chan struct{})
	}
	return l.opened
}

func (l *limiter) held() load {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all
}
