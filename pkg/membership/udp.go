package membership

import (
	"context"
	"time"
)

const (
	// udpLook is how often it is asked whether packets come.
	udpLook = time.Second
	// udpSilence is how long none comes before that is said. A member sends one
	// every 50 ms to somebody, and probes somebody every 200 ms.
	udpSilence = 5 * time.Second
)

// watchUDP says so when members are alive and no packet arrives. TCP keeps the
// cluster together then, so nobody would notice: failures are still found, but what
// members say about themselves spreads with the next full exchanges only, one in ten
// seconds.
func (g *Gossip) watchUDP(ctx context.Context) {
	tick := time.NewTicker(udpLook)
	defer tick.Stop()
	last := time.Now()
	from := last // since when packets were to be expected
	silent := false
	for {
		select {
		case <-tick.C:
		case <-g.closing:
			return
		case <-ctx.Done():
			return
		}
		now := time.Now()
		if !g.othersAlive() || now.Sub(last) > udpSilence/2 { // the latter: this process stood still
			from = now
		}
		last = now
		if at := g.transport.packetAt(); at.After(from) {
			from = at
		}
		was := silent
		silent = now.Sub(from) >= udpSilence
		switch {
		case silent && !was:
			g.log.Warn("members are alive, but none of their gossip comes over UDP; it goes on over TCP, and slower: is UDP open to this address?",
				"address", g.bound, "for", now.Sub(from).Round(time.Second))
			g.metrics.udpSilent.Set(1)
		case was && !silent:
			g.log.Info("gossip comes over UDP again", "address", g.bound)
			g.metrics.udpSilent.Set(0)
		}
	}
}
