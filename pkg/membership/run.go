package membership

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// How long Run waits between two rounds of joining.
const (
	joinBackoffMin = 200 * time.Millisecond
	joinBackoffMax = 10 * time.Second
)

// Run keeps Members current, joins the configured addresses, again when we are
// alone, and says our tags. It ends when ctx does or Close is called, with nil;
// with a *ConflictError when gossip ended by itself. Gossip goes on being
// answered until Close. Run is called once.
func (g *Gossip) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// They block on the network where no context reaches, so Close, which can
	// end that, waits for them instead of us.
	for _, work := range []func(context.Context){g.keepJoined, g.keepTagged, g.keepPlace, g.keepSnapshot, g.watchUDP} {
		if !g.begin() {
			return nil
		}
		go func() {
			defer g.worker.Done()
			work(ctx)
		}()
	}
	g.refresh()
	for {
		select {
		case <-g.dirty:
			g.refresh()
		case <-g.serf.ShutdownCh():
			select {
			case <-g.closing:
				return nil
			default:
				return &ConflictError{ID: g.id}
			}
		case <-g.closing:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// keepJoined contacts every configured address until it has answered once. One
// answer is not enough: it may be our own, or that of another newcomer. When nobody
// else is alive, all are tried again, and the members that the snapshot names too. Of
// these each is asked once in company as well, unless it is in it: when all nodes come
// back at other addresses, nobody else can tell the proxies, which wait at theirs.
func (g *Gossip) keepJoined(ctx context.Context) {
	if len(g.retryJoin)+len(g.recalled) == 0 {
		return
	}
	pending, unasked := slices.Clone(g.retryJoin), slices.Clone(g.recalled)
	company := false // somebody else was alive at the last look
	var told string  // the last failure that was logged for all to see
	backoff := joinBackoffMin
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-g.closing:
			return
		case <-ctx.Done():
			return
		}
		alone := !g.othersAlive()
		if alone {
			pending = slices.Clone(g.retryJoin)
			if company {
				g.log.Warn("no other member is alive, joining again", "addresses", g.retryJoin)
				company, backoff = false, joinBackoffMin
			}
		}
		var failure error
		join := func(addr string) bool {
			if ctx.Err() != nil {
				return false
			}
			_, err := g.tryJoin([]string{addr})
			if err != nil {
				g.metrics.joinFailures.Inc()
				g.log.Debug("join failed", "address", addr, "err", err)
				failure = err
				if one := errors.Unwrap(err); one != nil {
					failure = one // serf's list of a single error takes three lines
				}
			}
			return err == nil
		}
		pending = slices.DeleteFunc(pending, func(addr string) bool { return join(addr) && g.hears(addr) })
		recall := func(addr string) {
			if join(addr) {
				g.log.Info("joined a member of the gossip snapshot", "address", addr)
			}
		}
		for _, addr := range g.recalled {
			if alone && !g.othersAlive() {
				recall(addr)
			}
		}
		if g.othersAlive() { // one at a time: who is not there takes long to fail
			unasked = slices.DeleteFunc(unasked, g.aliveAt)
			if len(unasked) > 0 {
				recall(unasked[0])
				unasked = unasked[1:]
			}
		}
		switch {
		case g.othersAlive():
			company, told = true, ""
		case failure != nil && failure.Error() != told:
			told = failure.Error()
			g.log.Warn("no other member yet, still joining", "addresses", slices.Concat(pending, g.recalled), "err", failure, "hint", hint(failure))
		case backoff == joinBackoffMin:
			g.log.Info("no other member yet, still joining", "addresses", g.retryJoin)
		}
		// With nothing pending this looks, now and then, whether we are alone.
		if backoff = min(2*backoff, joinBackoffMax); len(unasked) > 0 && g.othersAlive() {
			backoff = joinBackoffMin
		}
		timer.Reset(backoff/2 + rand.N(backoff/2))
	}
}

// hears notes that somebody answered at a configured address. It answers true.
func (g *Gossip) hears(addr string) bool {
	g.mu.Lock()
	g.heard[addr] = true
	g.mu.Unlock()
	signal(g.dirty)
	return true
}

// hint is what a failure to join usually means. Who has another key answers in it; who has
// another name for the cluster, or lets nobody in without a key, closes the connection.
func hint(err error) string {
	switch why := err.Error(); {
	case strings.Contains(why, "could decrypt"):
		return "is gossip_key the same there?"
	case strings.Contains(why, "EOF"), strings.Contains(why, "reset by peer"), strings.Contains(why, "broken pipe"):
		return "it closed the connection: are gossip_key and the cluster the same there?"
	}
	return "is it up, and does it gossip there?"
}

// keepTagged is the only caller of Serf's SetTags, which blocks until the change
// has been gossiped, for up to five seconds.
func (g *Gossip) keepTagged(ctx context.Context) {
	for {
		select {
		case <-g.retag:
		case <-g.closing:
			return
		case <-ctx.Done():
			return
		}
		want := *g.wanted.Load()
		if want == g.said {
			continue
		}
		tags, err := encodeTags(g.role, want)
		if err != nil {
			g.log.Error("gossip tags kept as they are", "err", err)
			continue
		}
		// Its error is that the change was not confirmed as sent in time. The
		// change has been made all the same, and travels with the next exchange.
		if err := g.serf.SetTags(tags); err != nil {
			g.log.Warn("gossip tags are slow to spread", "err", err)
		}
		g.said = want
		signal(g.dirty)
	}
}
