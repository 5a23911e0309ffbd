package throttle

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
)

const (
	// leastStore is more than the largest message of either program, in bytes.
	leastStore = 4 << 20
	// maxAccounts bounds the principals that are told apart.
	maxAccounts = 4096
	// idleAfter is how long an account is not used before it may be forgotten, and
	// sweepEvery how often those are looked for at most.
	idleAfter  = time.Minute
	sweepEvery = time.Second
	// tellEvery is how often a principal past a rate is named in the log, and
	// tellPause how often any is.
	tellEvery = time.Minute
	tellPause = time.Second
	// leastAfter is the shortest time anybody is sent away for.
	leastAfter = 10 * time.Millisecond
)

// Rates are what one principal may do a second. 0: whatever it likes.
type Rates struct {
	Produce  int64 // bytes
	Consume  int64 // bytes
	Requests int   // calls, streams opened, and messages that come on a stream
}

// Config is what New needs.
type Config struct {
	Rates
	Namespace  string                // of the metrics
	Logger     hclog.Logger          // nil: quiet
	Registerer prometheus.Registerer // nil: no metrics
}

// Error refuses what would be too much.
type Error struct {
	Limit string // the setting
	After time.Duration
}

func (e *Error) Error() string {
	return fmt.Sprintf("this principal is past its %s", e.Limit)
}

// Throttle knows what each principal has done of late. It is safe for concurrent use.
type Throttle struct {
	logger  hclog.Logger
	metrics *metrics

	terms atomic.Pointer[terms] // nil: nothing is bounded; stored under mu

	mu       sync.Mutex
	accounts map[string]*account // at most maxAccounts; guarded by mu
	rest     *account            // of all for whom there was no place; guarded by mu, nil before the first
	swept    time.Time           // guarded by mu
	told     time.Time           // when the log last named anybody; guarded by mu
}

// terms are what holds until Set changes it.
type terms struct {
	Rates
	ended chan struct{} // closed once others hold: who waits by these looks again
}

// account is one principal's, under the terms it was made for. Its limiters are nil
// where there is no bound.
type account struct {
	produce, consume, requests *rate.Limiter
	ended                      <-chan struct{} // the terms'

	used time.Time // guarded by Throttle.mu
	told time.Time // guarded by Throttle.mu
}

// New makes a Throttle.
func New(cfg Config) (*Throttle, error) {
	t := &Throttle{logger: cfg.Logger, accounts: make(map[string]*account)}
	if t.logger == nil {
		t.logger = hclog.NewNullLogger()
	}
	t.metrics = newMetrics(cfg.Namespace, t.len)
	t.Set(cfg.Rates)
	return t, t.metrics.register(cfg.Registerer)
}

// Set changes the rates from now on. What a principal has used of a rate that stays as
// it was still counts; of one that changes, everybody's store is full again, and who
// waits for it looks anew.
func (t *Throttle) Set(r Rates) {
	t.mu.Lock()
	defer t.mu.Unlock()
	was := t.terms.Load()
	if was == nil && r == (Rates{}) || was != nil && was.Rates == r {
		return
	}
	if r == (Rates{}) {
		t.terms.Store(nil)
		clear(t.accounts)
		t.rest = nil
	} else {
		next := &terms{Rates: r, ended: make(chan struct{})}
		t.terms.Store(next)
		for name, a := range t.accounts {
			t.accounts[name] = next.account(was, a)
		}
		if t.rest != nil {
			t.rest = next.account(was, t.rest)
		}
	}
	if was != nil {
		close(was.ended)
	}
}

// bounds are the terms that hold; the zero Rates where there are none.
func (t *Throttle) bounds() (r Rates) {
	if t == nil {
		return r
	}
	if now := t.terms.Load(); now != nil {
		return now.Rates
	}
	return r
}

// Reads says whether it matters what is read.
func (t *Throttle) Reads() bool { return t.bounds().Consume != 0 }

// Call counts a call, or a stream that is opened. The error is an *Error.
func (t *Throttle) Call(principal string) error {
	if t.bounds().Requests == 0 {
		return nil
	}
	return t.take(principal, t.of(principal).requests, 1, requests)
}

// Produce counts n bytes that came with a call. The error is an *Error.
func (t *Throttle) Produce(principal string, n int) error {
	if t.bounds().Produce == 0 {
		return nil
	}
	return t.take(principal, t.of(principal).produce, n, produce)
}

// Message counts a message of n bytes that came on a stream, and waits until it may be
// handled: at most for most, unless that is 0. What waits too long, or until ctx ends,
// is not counted. The error is an *Error, or why ctx has ended.
func (t *Throttle) Message(ctx context.Context, principal string, n int, most time.Duration) error {
	r := t.bounds()
	if r.Requests != 0 {
		if err := t.wait(ctx, principal, 1, most, requests); err != nil {
			return err
		}
	}
	if r.Produce != 0 {
		return t.wait(ctx, principal, n, most, produce)
	}
	return nil
}

// MayRead refuses a read of a principal that has read too much. The error is an *Error.
func (t *Throttle) MayRead(principal string) error {
	if d := t.UntilRead(principal); d > 0 {
		t.note(principal, consume, refused, 0)
		return &Error{Limit: string(consume), After: max(d, leastAfter)}
	}
	return nil
}

// HasRead counts n bytes that the principal gets.
func (t *Throttle) HasRead(principal string, n int) {
	if !t.Reads() {
		return
	}
	now := time.Now()
	l := t.of(principal).consume
	for l != nil && n > 0 { // a limiter takes no more at a time than its store
		some := min(n, l.Burst())
		l.ReserveN(now, some)
		n -= some
	}
}

// UntilRead is how long the principal has to wait before its next read.
func (t *Throttle) UntilRead(principal string) time.Duration {
	if !t.Reads() {
		return 0
	}
	return t.of(principal).untilRead()
}

func (a *account) untilRead() time.Duration {
	if a.consume == nil {
		return 0
	}
	now := time.Now()
	return a.consume.ReserveN(now, 0).DelayFrom(now)
}

// WaitRead waits until the principal may read, on a stream: at most for most, unless
// that is 0, and then says that it still may not.
func (t *Throttle) WaitRead(ctx context.Context, principal string, most time.Duration) (may bool, err error) {
	if !t.Reads() {
		return true, nil
	}
	begun := time.Now()
	for t.Reads() {
		a := t.of(principal)
		d := a.untilRead()
		if d <= 0 {
			break
		}
		left := most - time.Since(begun)
		may := most == 0 || d <= left
		if !may {
			d = max(left, 0)
		}
		t.note(principal, consume, waited, d)
		if again, err := t.sleep(ctx, principal, a, consume, d); err != nil || !again {
			return may, err
		}
	}
	return true, nil
}

func (t *Throttle) take(principal string, l *rate.Limiter, n int, what limit) error {
	if l == nil { // the rates have changed under us
		return nil
	}
	now := time.Now()
	r := l.ReserveN(now, min(n, l.Burst()))
	d := r.DelayFrom(now)
	if d == 0 {
		return nil
	}
	r.CancelAt(now)
	t.note(principal, what, refused, 0)
	return &Error{Limit: string(what), After: max(d, leastAfter)}
}

// wait is for the principal's requests or for what it produces.
func (t *Throttle) wait(ctx context.Context, principal string, n int, most time.Duration, what limit) error {
	begun := time.Now()
	for t.terms.Load() != nil {
		a := t.of(principal)
		l := a.limiter(what)
		if l == nil {
			return nil
		}
		now := time.Now()
		r := l.ReserveN(now, min(n, l.Burst()))
		d := r.DelayFrom(now)
		left := most - now.Sub(begun)
		switch {
		case d == 0:
			return nil
		case most != 0 && d > left:
			r.CancelAt(now)
			t.note(principal, what, refused, 0)
			return &Error{Limit: string(what), After: max(d-left, leastAfter)}
		}
		t.note(principal, what, waited, d)
		again, err := t.sleep(ctx, principal, a, what, d)
		if err != nil || again {
			r.Cancel()
		}
		if !again {
			return err
		}
	}
	return nil
}

// sleep waits for d, which the limiter of the principal's account a has said. again
// says that another limiter holds before that is over.
func (t *Throttle) sleep(ctx context.Context, principal string, a *account, what limit, d time.Duration) (again bool, err error) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for l := a.limiter(what); ; {
		select {
		case <-timer.C:
			return false, nil
		case <-a.ended:
			if a = t.of(principal); a.limiter(what) != l {
				return true, nil
			}
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
}

func (a *account) limiter(what limit) *rate.Limiter {
	switch what {
	case produce:
		return a.produce
	case consume:
		return a.consume
	}
	return a.requests
}

// of is the principal's account.
func (t *Throttle) of(principal string) *account {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	terms := t.terms.Load()
	if terms == nil { // since the caller looked
		return new(account)
	}
	a := t.accounts[principal]
	switch {
	case a != nil:
	case len(t.accounts) < maxAccounts || t.sweep(now):
		a = terms.account(nil, nil)
		t.accounts[principal] = a
	default:
		if t.rest == nil {
			t.rest = terms.account(nil, nil)
		}
		a = t.rest
	}
	a.used = now
	return a
}

// sweep forgets accounts that would be as they are if they were made anew, and says
// whether there were any. mu is held.
func (t *Throttle) sweep(now time.Time) bool {
	if now.Sub(t.swept) < sweepEvery {
		return false
	}
	t.swept = now
	before := len(t.accounts)
	for name, a := range t.accounts {
		if now.Sub(a.used) >= idleAfter && full(a.produce, now) && full(a.consume, now) && full(a.requests, now) {
			delete(t.accounts, name)
		}
	}
	return len(t.accounts) < before
}

func full(l *rate.Limiter, now time.Time) bool {
	return l == nil || l.TokensAt(now) >= float64(l.Burst())
}

func (t *Throttle) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.accounts)
}

// account is a principal's whose account was a under other terms; both may be nil.
func (r *terms) account(was *terms, a *account) *account {
	next := &account{ended: r.ended}
	if a != nil {
		next.used, next.told = a.used, a.told
	}
	if r.Produce != 0 {
		if a != nil && r.Produce == was.Produce {
			next.produce = a.produce
		} else {
			next.produce = rate.NewLimiter(rate.Limit(r.Produce), int(max(r.Produce, leastStore)))
		}
	}
	if r.Consume != 0 {
		if a != nil && r.Consume == was.Consume {
			next.consume = a.consume
		} else {
			next.consume = rate.NewLimiter(rate.Limit(r.Consume), int(max(r.Consume, leastStore)))
		}
	}
	if r.Requests != 0 {
		if a != nil && r.Requests == was.Requests {
			next.requests = a.requests
		} else {
			next.requests = rate.NewLimiter(rate.Limit(r.Requests), r.Requests)
		}
	}
	return next
}

// note counts that somebody met a limit, and now and then names who.
func (t *Throttle) note(principal string, what limit, how outcome, d time.Duration) {
	t.metrics.met(what, how, d)
	now := time.Now()
	t.mu.Lock()
	a := t.accounts[principal] // none of those that share one is named
	tell := a != nil && now.Sub(a.told) >= tellEvery && now.Sub(t.told) >= tellPause
	if tell {
		a.told, t.told = now, now
	}
	t.mu.Unlock()
	if tell {
		t.logger.Info("a principal is past its rate", "principal", principal, "limit", string(what))
	}
}
