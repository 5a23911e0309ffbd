package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/bootstrap"
	"github.com/logd-io/logd/pkg/membership"
)

// joinEvery is the time between two attempts to join.
const joinEvery = time.Second

func (a *Agent) openBootstrap() error {
	store, err := bootstrap.Open(a.deps.FS, a.cfg.DataDir)
	if err != nil {
		return fmt.Errorf("open the promise in %s: %w", filepath.Clean(a.cfg.DataDir), err)
	}
	a.boot = bootstrap.New(bootstrap.Config{
		ID: a.id, Expect: a.cfg.BootstrapExpect,
		Store: store, Replica: a.replica, Peers: peers{a}, Asker: asker{a},
		Bound:  func() string { return a.replica.View().ClusterID },
		Logger: a.logger.Named("bootstrap"),
	})
	return nil
}

// enter brings a node without state into a cluster, and then waits for ctx: by
// beginning one together with others, or by being taken into one that is there.
func (a *Agent) enter(ctx context.Context) error {
	if a.cfg.BootstrapExpect > 0 && !a.replica.HasState() {
		a.say(fmt.Sprintf("waiting for %d nodes to begin one with (bootstrap_expect)", a.cfg.BootstrapExpect))
		err := a.boot.Run(ctx)
		var exists *bootstrap.PeerStateError
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return nil //nolint:nilerr // asked to end
		case errors.As(err, &exists):
			a.logger.Info("there is a cluster already; joining it", "node", a.id, "why", err)
		default:
			return err
		}
	}
	if err := a.joinUntilTaken(ctx); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// joinUntilTaken asks nodes of the cluster to take this one in, until Raft's log
// has reached it. Asked again, they change nothing.
func (a *Agent) joinUntilTaken(ctx context.Context) error {
	tick := time.NewTicker(joinEvery)
	defer tick.Stop()
	var told map[string]bool // what the last round's refusals said, whoever said it
	for !a.replica.HasState() {
		gossip, raft := a.gossip.Changes(), a.replica.Changes()
		news, asked := make(map[string]bool), false
		for _, m := range a.gossip.Members() {
			if m.ID == a.id || m.Role != membership.RoleStorage || m.State != membership.Alive || !m.HasState || m.RPCAddr == "" {
				continue
			}
			asked = true
			cluster, err := a.join(ctx, m.ID)
			if err == nil {
				err = a.replica.Bind(cluster)
			}
			if err == nil {
				a.say("taken in, waiting for the leader's first entries")
				break
			}
			a.say(fmt.Sprintf("join through %s: %v", m.ID, err))
			if why := err.Error(); !told[why] && !news[why] && ctx.Err() == nil {
				a.logger.Warn("not taken in yet", "node", a.id, "through", m.ID, "err", err)
			}
			news[err.Error()] = true
		}
		told = news
		if !asked {
			a.say("waiting for a node of a cluster to show up in gossip (retry_join)")
		}
		select {
		case <-gossip:
		case <-raft:
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

// say notes what this node waits for, for /readyz.
func (a *Agent) say(what string) { a.waitsFor.Store(&what) }

func (a *Agent) waiting() string {
	if s := a.waitsFor.Load(); s != nil {
		return *s
	}
	return "just started"
}

// peers is gossip, as bootstrap looks at it.
type peers struct{ *Agent }

func (p peers) Changes() <-chan struct{} { return p.gossip.Changes() }

func (p peers) Peers() (all []bootstrap.Peer) {
	for _, m := range p.gossip.Members() {
		if m.Role == membership.RoleStorage && m.State != membership.Left {
			all = append(all, bootstrap.Peer{
				ID: m.ID, Expect: m.Expect, HasState: m.HasState, Cluster: m.Cluster, Alive: m.State == membership.Alive,
			})
		}
	}
	return all
}

// asker carries a request for a promise to another node.
type asker struct{ *Agent }

func (k asker) Promise(ctx context.Context, id string, p bootstrap.Promise) error {
	err := k.promise(ctx, id, &nodev1.PromiseRequest{ClusterId: p.Cluster, Initiator: p.Initiator, Servers: p.Servers})
	info, _ := apierr.From(err)
	if info.Reason == apierr.ReasonInvalid {
		return &bootstrap.RefusedError{Peer: id, Err: errors.New(info.Message)}
	}
	if denied := (apierr.PermissionDenied{}); err != nil && errors.As(info.Err(), &denied) {
		// A policy can be mended while this node waits.
		text := "other nodes' acl keeps this one from beginning a cluster with them: " + denied.Why
		if k.waiting() != text {
			k.say(text)
			k.logger.Warn("no promise yet", "node", k.id, "peer", id, "err", denied.Why)
		}
	}
	return err
}
