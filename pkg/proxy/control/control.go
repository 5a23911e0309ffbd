package control

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/logd-io/logd/pkg/balance"
	"github.com/logd-io/logd/pkg/discovery"
	"github.com/logd-io/logd/pkg/internal/events"
	"github.com/logd-io/logd/pkg/proxy/route"
	"github.com/logd-io/logd/pkg/proxy/upstream"
)

// Config of a Control.
type Config struct {
	// Sources are merged; where two know a node's address, the earlier one counts.
	Sources []discovery.Source
	Pool    *upstream.Pool // control alone adds to it and removes from it
	Holder  *route.Holder  // control alone publishes to it
	Policy  balance.Policy // nil: round robin

	// MaxLag is how many records a follower may be behind the newest offset known
	// and still be read from. 0: any number.
	MaxLag uint64
	// WatchLimit is how many nodes are watched. 0: 5; at least 2.
	WatchLimit int
	// StallAfter is how long a watch may say nothing, and a follower know no leader
	// while there is one, before it is distrusted. 0: 1 s. Nodes speak every
	// few hundred milliseconds.
	StallAfter time.Duration
	// EjectBase is how long a follower rests on which three requests in a row have
	// failed; it doubles while the next one fails too, up to 10 s. 0: 500 ms.
	EjectBase time.Duration

	Logger     hclog.Logger          // nil: quiet
	Registerer prometheus.Registerer // nil: no metrics
	Events     *events.Log           // what has happened, for people; may be nil
}

// Control is the deciding part of a proxy.
type Control struct {
	cfg     Config
	log     hclog.Logger
	metrics *metrics
	status  atomic.Pointer[Status]

	// posts carries what the goroutines of Run have to say; unbuffered, so that what
	// one goroutine says stays in order and nothing is said to a loop that is over.
	posts chan func(*loop)
	// hints may fill up, and then loses: a request does not wait for control, and
	// the next one that fails says the same.
	hints chan func(*loop)
}

// hintsWaiting is the most hints that wait; they are read in one go.
const hintsWaiting = 256

// New makes a Control. Nothing happens before Run.
func New(cfg Config) (*Control, error) {
	if cfg.Policy == nil {
		cfg.Policy = balance.NewRoundRobin()
	}
	if cfg.WatchLimit == 0 {
		cfg.WatchLimit = 5
	}
	cfg.WatchLimit = max(cfg.WatchLimit, 2)
	if cfg.StallAfter == 0 {
		cfg.StallAfter = time.Second
	}
	if cfg.EjectBase == 0 {
		cfg.EjectBase = 500 * time.Millisecond
	}
	if cfg.Logger == nil {
		cfg.Logger = hclog.NewNullLogger()
	}
	c := &Control{
		cfg: cfg, log: cfg.Logger, metrics: newMetrics(),
		posts: make(chan func(*loop)),
		hints: make(chan func(*loop), hintsWaiting),
	}
	c.status.Store(&Status{})
	if cfg.Registerer != nil {
		for _, m := range append(c.metrics.collectors(), newNodeGauges(c)) {
			if err := cfg.Registerer.Register(m); err != nil {
				return nil, fmt.Errorf("register metrics: %w", err)
			}
		}
	}
	return c, nil
}

// NotLeader tells that node from answered that it does not lead; leader (an id),
// addr and term are what it said in its place, empty and 0 where it did not. It
// does not block.
func (c *Control) NotLeader(from, leader, addr string, term uint64) {
	c.hint(func(l *loop) { l.notLeader(from, leader, addr, term) })
}

// Failed tells that a request failed on node id in a way that speaks against the
// node. The call is to be counted out of its upstream.Node before. It does not
// block.
func (c *Control) Failed(id string, err error) {
	c.hint(func(l *loop) { l.failed(id, err) })
}

func (c *Control) hint(f func(*loop)) {
	select {
	case c.hints <- f:
	default:
		c.metrics.hintsDropped.Inc()
	}
}

// post hands f to the loop, unless ctx ends first.
func (c *Control) post(ctx context.Context, f func(*loop)) bool {
	select {
	case c.posts <- f:
		return true
	case <-ctx.Done():
		return false
	}
}

// Run publishes tables until ctx ends, and then answers context.Cause(ctx). The
// last table stays published and the Pool open. Run is called once.
func (c *Control) Run(ctx context.Context) error {
	var workers sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	defer workers.Wait()
	defer cancel()

	l := newLoop(ctx, c, &workers)
	defer l.close()
	for i, src := range c.cfg.Sources {
		workers.Go(func() { c.receive(ctx, i, src) })
	}

	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case f := <-c.posts:
			f(l)
		case f := <-c.hints:
			f(l)
		case <-timer.C:
		}
		for range len(c.hints) { // a storm of hints is one decision
			f := <-c.hints
			f(l)
		}
		now := time.Now()
		if next := l.settle(now); next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(next.Sub(now))
		}
	}
}

// receive carries the sets of source i to the loop. A source that ends keeps its
// last set.
func (c *Control) receive(ctx context.Context, i int, src discovery.Source) {
	var running sync.WaitGroup
	defer running.Wait()
	sets := make(chan []discovery.Node) // unbuffered: the loop takes each set before the next is made
	ended := make(chan error, 1)        // the one answer of Run
	running.Go(func() { ended <- src.Run(ctx, sets) })
	for {
		select {
		case set := <-sets:
			c.post(ctx, func(l *loop) { l.sets[i] = set })
		case err := <-ended:
			if ctx.Err() == nil {
				c.log.Error("a source of nodes has ended; its last set stays", "source", i, "err", err)
			}
			return
		}
	}
}
