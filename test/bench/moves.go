package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/test/benchkit"
	"github.com/logd-io/logd/test/harness"
)

const (
	moveProducers = 16
	moveTarget    = 5 // heartbeat timeouts, without any acknowledgement
	settled       = 200
)

// acks notes when records are acknowledged.
type acks struct {
	mu      sync.Mutex
	n       int           // guarded by mu
	last    time.Time     // of the newest; guarded by mu
	longest time.Duration // between two since the last step began; guarded by mu
	err     error         // the first of a producer; guarded by mu
}

func (a *acks) note(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		a.err = errors.Join(a.err, err)
		return
	}
	a.n++
	now := time.Now()
	a.longest = max(a.longest, now.Sub(a.last))
	a.last = now
}

// produce has producers write one record at a time each until ctx ends.
func (a *acks) produce(ctx context.Context, conn grpc.ClientConnInterface) {
	var wg sync.WaitGroup
	for range moveProducers {
		wg.Go(func() {
			client := logv1.NewLogClient(conn)
			for ctx.Err() == nil {
				_, err := client.Produce(context.WithoutCancel(ctx), &logv1.ProduceRequest{Record: &logv1.Record{Value: []byte("probe")}})
				a.note(err)
				if err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
}

// more waits for n acknowledgements.
func (a *acks) more(ctx context.Context, n int) error {
	a.mu.Lock()
	want := a.n + n
	a.mu.Unlock()
	return harness.Until(ctx, func() error {
		a.mu.Lock()
		defer a.mu.Unlock()
		switch {
		case a.err != nil:
			return harness.Ended(fmt.Errorf("a naive client saw an error: %w", a.err))
		case a.n < want:
			return fmt.Errorf("%d of %d acknowledgements", a.n, want)
		}
		return nil
	})
}

// step is one thing that is done to a cluster under load.
type step struct {
	name string
	do   func(context.Context) error
}

// moves measures, for each step that plan makes, how long nothing at all was
// acknowledged, on a new cluster a round.
func (b *bench) moves(name string, plan func(*world) []step) func(context.Context) error {
	return func(ctx context.Context) error {
		worst := 0.0
		for range b.Rounds {
			err := b.with(func(ctx context.Context, w *world) (err error) {
				conn, err := harness.Naive(w.proxy.Addr)
				if err != nil {
					return err
				}
				defer func() { err = errors.Join(err, conn.Close()) }()
				a := &acks{last: time.Now()}
				load, stop := context.WithCancel(ctx)
				ended := make(chan struct{})
				go func() { // joined below
					defer close(ended)
					a.produce(load, conn)
				}()
				defer func() { stop(); <-ended }()
				if err := a.more(ctx, settled); err != nil {
					return err
				}
				for _, s := range plan(w) {
					a.mu.Lock()
					a.longest = 0
					a.mu.Unlock()
					if err := s.do(ctx); err != nil {
						return fmt.Errorf("%s: %w", s.name, err)
					}
					if err := a.more(ctx, settled); err != nil {
						return fmt.Errorf("%s: %w", s.name, err)
					}
					a.mu.Lock()
					longest := a.longest
					a.mu.Unlock()
					fmt.Printf("  %s: %s: longest time without an acknowledgement %s\n", name, s.name, longest.Round(time.Millisecond))
					worst = max(worst, float64(longest)/float64(defaultHeartbeat))
				}
				return nil
			})(ctx)
			if err != nil {
				return err
			}
		}
		benchkit.Goal.AtMost(name+"-worst-heartbeats", worst, moveTarget, "")
		return nil
	}
}

func (w *world) restart(n *harness.Node) step {
	return step{"restart of " + n.Name, func(ctx context.Context) error {
		if err := n.Stop(ctx); err != nil {
			return err
		}
		if err := n.Start(); err != nil {
			return err
		}
		return w.NodeReady(ctx, n)
	}}
}

// rolling restarts every node.
func rolling(w *world) (steps []step) {
	for _, n := range w.Nodes {
		steps = append(steps, w.restart(n))
	}
	return steps
}

// replaced replaces every node by a new one.
func replaced(w *world) (steps []step) {
	for _, n := range w.Nodes {
		steps = append(steps, step{"a node joins", w.join}, step{"retreat of " + n.Name, func(ctx context.Context) error { return w.retire(ctx, n) }})
	}
	return steps
}

// grown makes three nodes five, and three again without the leader and another.
func grown(w *world) []step {
	leader := func(ctx context.Context) error {
		n, err := w.Leader(ctx)
		if err != nil {
			return err
		}
		return w.retire(ctx, n)
	}
	other := func(ctx context.Context) error {
		l, err := w.Leader(ctx)
		if err != nil {
			return err
		}
		for _, n := range w.Nodes {
			if n != l && n.Running() {
				return w.retire(ctx, n)
			}
		}
		return errors.New("no follower runs")
	}
	return []step{{"a fourth joins", w.join}, {"a fifth joins", w.join}, {"retreat of the leader", leader}, {"retreat of another", other}}
}

// join starts a new node and waits until it votes.
func (w *world) join(ctx context.Context) error {
	n, err := w.AddNode(0)
	if err != nil {
		return err
	}
	if err := n.Start(); err != nil {
		return err
	}
	if err := w.NodeReady(ctx, n); err != nil {
		return err
	}
	own, err := w.Stats(ctx, n)
	if err != nil {
		return err
	}
	return harness.Until(ctx, func() error {
		leader, err := w.Leader(ctx)
		if err != nil {
			return err
		}
		st, err := w.Stats(ctx, leader)
		if err != nil {
			return err
		}
		for _, p := range st.GetPeers() {
			if p.GetId() == own.GetNodeId() && p.GetVoter() {
				return nil
			}
		}
		return fmt.Errorf("%s has no vote yet", n.Name)
	})
}

// retire takes a node out as an operator does: leadership goes elsewhere, its id leaves
// the configuration, and it stops.
func (w *world) retire(ctx context.Context, n *harness.Node) error {
	own, err := w.Stats(ctx, n)
	if err != nil {
		return err
	}
	err = harness.Until(ctx, func() error {
		leader, err := w.Leader(ctx)
		if err != nil {
			return err
		}
		conn, err := w.Dial("admin", leader)
		if err != nil {
			return err
		}
		defer conn.Close()
		admin := nodev1.NewNodeClient(conn)
		if leader == n {
			if _, err := admin.TransferLeadership(ctx, &nodev1.TransferLeadershipRequest{}); err != nil {
				return err
			}
			return errors.New("leadership was just handed on")
		}
		_, err = admin.RemovePeer(ctx, &nodev1.RemovePeerRequest{Id: own.GetNodeId()})
		return err
	})
	if err != nil {
		return err
	}
	return n.Stop(ctx)
}
