package forward

import (
	"math/rand/v2"
	"sync"
	"time"
)

// budget keeps retries a fraction of the work: each costs a token, successes earn
// a tenth of one, and a few a second come by themselves so that an idle proxy can
// always try.
type budget struct {
	mu     sync.Mutex
	tokens float64 // guarded by mu; in [0, budgetMax]
	at     int64   // when tokens was last brought up to date; guarded by mu
}

const (
	budgetMax       = 100
	budgetPerSecond = 10
	budgetPerDone   = 0.1
)

func newBudget() *budget { return &budget{tokens: budgetMax} }

// done earns for n successes.
func (b *budget) done(n int) {
	b.mu.Lock()
	b.tokens = min(budgetMax, b.tokens+budgetPerDone*float64(n))
	b.mu.Unlock()
}

// spend takes a token, or says that there is none left.
func (b *budget) spend(now int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now > b.at {
		b.tokens = min(budgetMax, b.tokens+budgetPerSecond*time.Duration(now-b.at).Seconds())
		b.at = now
	}
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

const (
	backoffFirst = 5 * time.Millisecond
	backoffMost  = time.Second
)

// backoff is the pause before the n-th retry in a row, n from 1: doubling, with
// the upper half random so that proxies do not march in step.
func backoff(n int) time.Duration {
	d := backoffMost
	if n < 9 {
		d = min(backoffMost, backoffFirst<<(n-1))
	}
	return d/2 + rand.N(d/2)
}
