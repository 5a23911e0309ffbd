package proxy

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/logd-io/logd/pkg/internal/events"
	"github.com/logd-io/logd/pkg/internal/throttle"
	"github.com/logd-io/logd/pkg/proxy/forward"
	"github.com/logd-io/logd/pkg/proxy/route"
)

const (
	observeEvery = time.Second
	// rateOver is how far back rates and durations go.
	rateOver = 10
	// holdShown is how long a hold lasts before it is told of while it lasts. An
	// election takes less.
	holdShown = time.Second
	// waitsShown and the like are how many of a kind a second are worth an event: below
	// it, they are what goes on all the time.
	waitsShown = 20
)

// observer looks once a second at what is counted anyway, so that what happens in every
// call costs no call anything: it makes rates of it, and events of what stands out.
type observer struct {
	events   *events.Log
	forward  *forward.Forwarder
	holder   *route.Holder
	newest   func() uint64 // offset after the newest record that is known of
	metrics  *metrics
	throttle *throttle.Throttle // nil: there are no rates

	rates   atomic.Pointer[observed]
	samples []sample // the newest last, at most rateOver+1; of run alone
	holding bool     // the hold that lasts has been told of; of run alone
	before  tallies  // of run alone
}

// observed is what was seen over the last seconds.
type observed struct {
	calls, errors, records float64 // a second
	nodes                  map[string]nodeRates
	total                  tallies
	now                    tallies // a second
}

// nodeRates are of the unary calls that a node had a part in.
type nodeRates struct {
	calls, errors float64 // a second
	p50, p99      time.Duration
}

// sample is what had been counted at a time.
type sample struct {
	at      time.Time
	newest  uint64
	nodes   map[string]nodeCounts
	tallies tallies
}

type nodeCounts struct {
	calls, errors float64
	le            []float64 // upper bounds of the buckets, ascending
	buckets       []uint64  // cumulative
}

// tallies are counters, of the data path and of the listener.
type tallies struct {
	forward.Counts
	RefusedCalls, RefusedConns, UnreadEnded, Throttled float64
}

// over is t a second, when t was counted in so many.
func (t tallies) over(seconds float64) tallies {
	c := t.Counts
	return tallies{
		Counts: forward.Counts{
			Held: c.Held / seconds, Refused: c.Refused / seconds, Expired: c.Expired / seconds,
			Retries: c.Retries / seconds, Resent: c.Resent / seconds, AckTimeouts: c.AckTimeouts / seconds,
			ReadRetries: c.ReadRetries / seconds, SessionWaits: c.SessionWaits / seconds,
			Resumes: c.Resumes / seconds, Stalls: c.Stalls / seconds, Slow: c.Slow / seconds,
		},
		RefusedCalls: t.RefusedCalls / seconds, RefusedConns: t.RefusedConns / seconds,
		UnreadEnded: t.UnreadEnded / seconds, Throttled: t.Throttled / seconds,
	}
}

func (t tallies) minus(o tallies) tallies {
	c, d := t.Counts, o.Counts
	return tallies{
		Counts: forward.Counts{
			Held: c.Held - d.Held, Refused: c.Refused - d.Refused, Expired: c.Expired - d.Expired,
			Retries: c.Retries - d.Retries, Resent: c.Resent - d.Resent, AckTimeouts: c.AckTimeouts - d.AckTimeouts,
			ReadRetries: c.ReadRetries - d.ReadRetries, SessionWaits: c.SessionWaits - d.SessionWaits,
			Resumes: c.Resumes - d.Resumes, Stalls: c.Stalls - d.Stalls, Slow: c.Slow - d.Slow,
		},
		RefusedCalls: t.RefusedCalls - o.RefusedCalls, RefusedConns: t.RefusedConns - o.RefusedConns,
		UnreadEnded: t.UnreadEnded - o.UnreadEnded, Throttled: t.Throttled - o.Throttled,
	}
}

// run looks until ctx ends.
func (o *observer) run(ctx context.Context) error {
	tick := time.NewTicker(observeEvery)
	defer tick.Stop()
	o.look()
	for {
		select {
		case <-tick.C:
			o.look()
			o.events.Flush()
		case <-ctx.Done():
			return nil
		}
	}
}

func (o *observer) look() {
	s := sample{at: time.Now(), newest: o.newest(), nodes: o.metrics.byNode(), tallies: o.tallies()}
	if len(o.samples) == 0 {
		o.before = s.tallies
	}
	o.tell(s.tallies.minus(o.before))
	o.before = s.tallies
	if len(o.samples) > rateOver {
		o.samples = slices.Delete(o.samples, 0, 1)
	}
	o.samples = append(o.samples, s)
	o.rates.Store(ratesOf(o.samples[0], s))
}

func (o *observer) tallies() tallies {
	return tallies{
		Counts:       o.forward.Counts(),
		RefusedCalls: sum(o.metrics.refusedCalls), RefusedConns: sum(o.metrics.refusedConns),
		UnreadEnded: sum(o.metrics.unreadEnded), Throttled: o.throttle.Count(),
	}
}

// tell makes events of what was counted since the last look.
func (o *observer) tell(d tallies) {
	since, held := o.forward.Holding()
	switch {
	case since == 0:
		o.holding = false
	case since >= holdShown && !o.holding:
		o.holding = true
		whom := "produces wait for a leader"
		if l := o.holder.Load().Leader; l != nil {
			whom = "produces wait, as " + l.ID() + " makes no progress"
		}
		o.events.Add(events.Event{Kind: "holding", Severity: events.Warning, Count: held,
			Text: fmt.Sprintf("%s: %d held so far", whom, held)})
	}
	for _, e := range []struct {
		kind     string
		severity events.Severity
		count    float64
		from     float64
		one      string // what it says of one
		more     string // and of how many
	}{
		{"refused", events.Warning, d.RefusedCalls, 1, "a call was refused for a limit of calls or of memory", "%.0f calls were refused for a limit of calls or of memory"},
		{"throttled", events.Warning, d.Throttled, 1, "a client was slowed down or refused, as it was past its rate", "clients were slowed down or refused %.0f times, as they were past their rates"},
		{"refused_connections", events.Warning, d.RefusedConns, 1, "a connection was closed for a limit", "%.0f connections were closed for a limit"},
		{"unread", events.Warning, d.UnreadEnded, 1, "a stream was ended because its client did not read", "%.0f streams were ended because their clients did not read"},
		{"refused_produces", events.Warning, d.Refused, 1, "a produce was refused: as many are held as may be", "%.0f produces were refused: as many are held as may be"},
		{"expired", events.Error, d.Expired, 1, "a produce ran out of time before a leader took or acknowledged it", "%.0f produces ran out of time before a leader took or acknowledged them"},
		{"silent_leader", events.Warning, d.AckTimeouts, 1, "an append stream was given up, as the leader did not acknowledge", "%.0f append streams were given up, as the leader did not acknowledge"},
		{"retries", events.Info, d.Retries, 1, "an append stream was opened again after a failure", "append streams were opened again after failures, %.0f times"},
		{"resent", events.Info, d.Resent, 1, "a batch was sent again, with the sequences it had", "%.0f batches were sent again, with the sequences they had"},
		{"read_retries", events.Info, d.ReadRetries, waitsShown, "", "%.0f reads were tried on a further node"},
		{"session_waits", events.Info, d.SessionWaits, waitsShown, "", "%.0f reads met a node that was behind what their session had seen"},
		{"resumes", events.Info, d.Resumes, 1, "a stream to a consumer was continued elsewhere", "%.0f streams to consumers were continued elsewhere"},
		{"stalls", events.Warning, d.Stalls, 1, "a stream to a consumer was moved, as its node fell silent", "%.0f streams to consumers were moved, as their node fell silent"},
		{"slow", events.Info, d.Slow, waitsShown, "", "%.0f streams to consumers fell behind those they shared a fetch with"},
	} {
		if e.count < e.from {
			continue
		}
		text := e.one
		if e.count > 1 {
			text = fmt.Sprintf(e.more, e.count)
		}
		o.events.Add(events.Event{Kind: e.kind, Severity: e.severity, Count: uint64(e.count), Text: text})
	}
}

// ratesOf is what was counted between two samples.
func ratesOf(from, to sample) *observed {
	r := &observed{nodes: map[string]nodeRates{}, total: to.tallies}
	seconds := to.at.Sub(from.at).Seconds()
	if seconds <= 0 {
		return r
	}
	if from.newest > 0 && to.newest > from.newest { // at 0 it was not known
		r.records = float64(to.newest-from.newest) / seconds
	}
	r.now = to.tallies.minus(from.tallies).over(seconds)
	for id, c := range to.nodes {
		b := from.nodes[id] // none: it was never asked before
		n := nodeRates{calls: max(0, c.calls-b.calls) / seconds, errors: max(0, c.errors-b.errors) / seconds}
		buckets := slices.Clone(c.buckets)
		if slices.Equal(b.le, c.le) {
			for i := range buckets {
				buckets[i] -= min(buckets[i], b.buckets[i])
			}
		}
		n.p50, n.p99 = quantile(.5, c.le, buckets), quantile(.99, c.le, buckets)
		r.nodes[id] = n
		r.calls += n.calls
		r.errors += n.errors
	}
	return r
}

// quantile is as Prometheus estimates it, by what is counted up to each bound; 0: there
// is nothing. What lies above the last bound counts as that.
func quantile(q float64, le []float64, cumulative []uint64) time.Duration {
	if len(cumulative) == 0 || cumulative[len(cumulative)-1] == 0 {
		return 0
	}
	rank := q * float64(cumulative[len(cumulative)-1])
	i := slices.IndexFunc(cumulative, func(n uint64) bool { return float64(n) >= rank })
	lower, below := 0.0, 0.0
	if i > 0 {
		lower, below = le[i-1], float64(cumulative[i-1])
	}
	within := float64(cumulative[i]) - below
	return time.Duration((lower + (le[i]-lower)*(rank-below)/within) * float64(time.Second))
}

// failures are the codes that speak against a node or the proxy, and not the client.
var failures = map[string]bool{
	"Unknown": true, "DeadlineExceeded": true, "ResourceExhausted": true, "Aborted": true,
	"Unimplemented": false, "Internal": true, "Unavailable": true, "DataLoss": true,
}

// byNode adds up the calls by the node that had a part in them. Calls that none had a
// part in are under none. A client that is past a rate is no failure.
func (m *metrics) byNode() map[string]nodeCounts {
	nodes := map[string]nodeCounts{}
	each(m.calls, func(x *dto.Metric) {
		id := label(x, "upstream")
		n := nodes[id]
		n.calls += x.GetCounter().GetValue()
		if failures[label(x, "code")] {
			n.errors += x.GetCounter().GetValue()
		}
		nodes[id] = n
	})
	each(m.pastRate, func(x *dto.Metric) {
		if n, ok := nodes[label(x, "upstream")]; ok {
			n.errors -= x.GetCounter().GetValue()
			nodes[label(x, "upstream")] = n
		}
	})
	each(m.seconds, func(x *dto.Metric) {
		id := label(x, "upstream")
		n := nodes[id]
		bs := x.GetHistogram().GetBucket()
		if n.buckets == nil {
			n.le, n.buckets = make([]float64, len(bs)+1), make([]uint64, len(bs)+1)
			for i, b := range bs {
				n.le[i] = b.GetUpperBound()
			}
			if len(bs) > 0 {
				n.le[len(bs)] = n.le[len(bs)-1]
			}
		}
		for i, b := range bs {
			n.buckets[i] += b.GetCumulativeCount()
		}
		n.buckets[len(bs)] += x.GetHistogram().GetSampleCount()
		nodes[id] = n
	})
	return nodes
}

// each calls f for every series of c.
func each(c prometheus.Collector, f func(x *dto.Metric)) {
	ch := make(chan prometheus.Metric, 64) // a few at a time
	go func() {                            // ends with Collect, which the loop below drains
		defer close(ch)
		c.Collect(ch)
	}()
	for m := range ch {
		var x dto.Metric
		if m.Write(&x) != nil {
			continue // it has no value
		}
		f(&x)
	}
}

// label is the value of a series' label; empty: it has none of that name.
func label(x *dto.Metric, name string) string {
	for _, l := range x.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

// sum adds up the series of a counter.
func sum(c prometheus.Collector) (total float64) {
	each(c, func(x *dto.Metric) { total += x.GetCounter().GetValue() })
	return total
}

// seen is the newest look; of a proxy that has not begun, none.
func (o *observer) seen() *observed {
	if r := o.rates.Load(); r != nil {
		return r
	}
	return new(observed)
}
