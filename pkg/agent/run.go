package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/logd-io/logd/pkg/membership"
	"github.com/logd-io/logd/pkg/replica"
)

// ErrClosed ends a Run that Close cut off.
var ErrClosed = errors.New("the agent was closed")

// Run serves until ctx ends, and then drains: it hands leadership on, lets calls
// finish for at most drain_timeout, and returns nil. It returns earlier with an
// error when something it cannot do without fails; replica.FatalError is one
// after which this process must not touch the data directory again.
func (a *Agent) Run(ctx context.Context) error {
	// life ends everything at once. Its cause tells a failure from an order.
	life, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	a.mu.Lock()
	if a.closed || a.ended != nil {
		a.mu.Unlock()
		return ErrClosed
	}
	a.cancel = func() { end(ErrClosed) }
	ended := make(chan struct{})
	a.ended = ended
	a.mu.Unlock()
	defer close(ended)

	g, life := errgroup.WithContext(life)
	fatal := make(chan error, 1) // capacity 1: only the first error of g gets there
	part := func(name string, run func(context.Context) error) {
		g.Go(func() error {
			err := run(life)
			if life.Err() != nil {
				return nil //nolint:nilerr // asked to
			}
			if err == nil {
				err = errors.New("it ended by itself")
			}
			err = fmt.Errorf("%s: %w", name, err)
			if f := (*replica.FatalError)(nil); errors.As(err, &f) {
				fatal <- err
			}
			return err
		})
	}
	part("replica", a.replica.Run)                         // the log itself
	part("gossip", a.gossip.Run)                           // who is there
	part("admin server", a.admin.Run)                      // probes and metrics
	part("observer", (&observer{Agent: a}).run)            // what people are told has happened
	context.AfterFunc(life, func() { _ = a.page.Close() }) // streams hold up the admin server's end
	part("certificates", a.certs.Run)                      // as their files change
	part("autopilot", a.pilot.Run)                         // who becomes a voter
	part("acl", a.authz.Run)                               // who may do what
	part("membership", a.follow)                           // keeps addresses and tags
	part("gossip's memory", a.forget)                      // who was removed is forgotten
	part("cluster", a.enter)                               // how this node comes into a cluster
	if a.enrolled != nil {
		part("readiness", a.tellReady)    // what the registrar goes by
		part("registrar", a.enrolled.Run) // who else is told of this node
	}
	part("RPC server", func(life context.Context) error {
		return a.serve(ctx, life, func() { end(nil) })
	})
	err := waitAll(g.Wait, fatal)
	switch cause := context.Cause(life); {
	case err != nil:
		return err
	case errors.Is(cause, ErrClosed):
		return ErrClosed
	}
	return nil
}

// fatalWait is how long a node that met a fatal fault waits for its parts.
const fatalWait = 5 * time.Second

// waitAll waits until everything has ended; after a fatal fault not for long,
// since a disk that hangs may hold any part of a node, and the process is to end.
func waitAll(wait func() error, fatal <-chan error) error {
	ended := make(chan error, 1) // capacity 1: nobody may be waiting any more
	go func() { ended <- wait() }()
	select {
	case err := <-ended:
		return err
	case err := <-fatal:
		timer := time.NewTimer(fatalWait)
		defer timer.Stop()
		select {
		case <-ended: //nolint:errcheck // what was fatal says more
		case <-timer.C:
		}
		return err
	}
}

// serve answers until life ends, or drains when ctx does and then calls end.
func (a *Agent) serve(ctx, life context.Context, end func()) error {
	served := make(chan error, 1) // capacity 1: the server never waits for us
	go func() { served <- a.server.Serve(a.listener) }()
	select {
	case err := <-served:
		return err
	case <-life.Done():
		return errors.Join(a.server.Close(), <-served)
	case <-ctx.Done():
	}
	a.logger.Info("draining", "node", a.id, "timeout", a.cfg.DrainTimeout)
	drain, cancel := context.WithTimeoutCause(life, a.cfg.DrainTimeout, fmt.Errorf("drain_timeout of %s is over", a.cfg.DrainTimeout))
	defer cancel()
	a.gossip.SetTags(func(t *membership.Tags) { t.Draining = true })
	a.server.SetDraining()
	a.handOver(drain)
	if err := a.server.Drain(drain); err != nil {
		a.logger.Warn("not all calls ended in time", "node", a.id, "err", err)
	}
	err := <-served
	end()
	return err
}

// handOver gives leadership away, if this node has it and somebody can take it.
func (a *Agent) handOver(ctx context.Context) {
	v := a.replica.View()
	others := 0
	for _, p := range v.Peers {
		if p.Voter && p.ID != a.id {
			others++
		}
	}
	if v.LeaderID != a.id || others == 0 {
		return
	}
	// As long as an election may take: past that the others elect one themselves.
	ctx, cancel := context.WithTimeout(ctx, max(5*a.cfg.Raft.HeartbeatTimeout, time.Second))
	defer cancel()
	if err := a.replica.Transfer(ctx, ""); err != nil {
		a.logger.Warn("leadership was not handed over; an election will follow", "node", a.id, "err", err)
	}
}

// follow keeps the address book in step with gossip, and our own tags with the
// replica.
func (a *Agent) follow(ctx context.Context) error {
	for {
		gossip, raft := a.gossip.Changes(), a.replica.Changes()
		if err := a.book.learn(a.gossip.Members()); err != nil {
			a.logger.Warn("the addresses of the other nodes are not kept", "node", a.id, "err", err)
		}
		v, state := a.replica.View(), a.replica.HasState()
		a.gossip.SetTags(func(t *membership.Tags) {
			t.Cluster, t.HasState = v.ClusterID, state
			t.Draining = t.Draining || v.Draining
		})
		select {
		case <-gossip:
		case <-raft:
		case <-ctx.Done():
			return nil
		}
	}
}
