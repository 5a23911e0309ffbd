package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/bootstrap"
	"github.com/logd-io/logd/pkg/membership"
)

// joinEvery is the time between two attempts to join.
const joinEvery = time.Second

// openPromises reads what this node has promised. A promise always has the id of who
// made it: one without it is that of the node which this one was before 'logd bootstrap
// forget', which died on the way. What it began is done, or this node would wait for a
// cluster that does not know its new id.
func (a *Agent) openPromises() error {
	store, err := bootstrap.Open(a.deps.FS, a.cfg.DataDir)
	if err != nil {
		return fmt.Errorf("open the promise in %s: %w", filepath.Clean(a.cfg.DataDir), err)
	}
	a.promises = store
	p, ok := store.Promised()
	if !ok || slices.Contains(p.Servers, a.id) || a.replica.HasState() {
		return nil
	}
	if bound := a.replica.View().ClusterID; bound != "" && bound != p.Cluster {
		return nil // it has been taken into another since
	}
	// The promise is last, as with the command: until it is gone, this is done again.
	if err := a.replica.Unbind(p.Cluster); err != nil {
		return fmt.Errorf("forget the promise in %s: %w", filepath.Clean(a.cfg.DataDir), err)
	}
	if err := store.Forget(); err != nil {
		return fmt.Errorf("forget the promise in %s: %w", filepath.Clean(a.cfg.DataDir), err)
	}
	a.logger.Warn("a promise of another id was here, as when 'logd bootstrap forget' is interrupted; it is forgotten",
		"node", a.id, "cluster", p.Cluster, "servers", p.Servers)
	return nil
}

func (a *Agent) openBootstrap() error {
	a.boot = bootstrap.New(bootstrap.Config{
		ID: a.id, Expect: a.cfg.BootstrapExpect,
		Store: a.promises, Replica: a.replica, Peers: peers{a}, Asker: asker{a},
		Unheard: a.gossip.Unheard,
		Bound:   func() string { return a.replica.View().ClusterID },
		Say:     a.say,
		Logger:  a.logger.Named("bootstrap"),
	})
	return nil
}

// enter brings a node without state into a cluster, and then waits for ctx: by
// beginning one together with others, or by being taken into one that is there.
func (a *Agent) enter(ctx context.Context) error {
	if p, ok := a.promises.Promised(); ok && a.cfg.BootstrapExpect > 0 && len(p.Servers) != a.cfg.BootstrapExpect && a.replica.HasState() {
		a.logger.Info("bootstrap_expect does nothing on a node that is in a cluster", "node", a.id,
			"bootstrap_expect", a.cfg.BootstrapExpect, "began_with", len(p.Servers))
	}
	if a.cfg.BootstrapExpect > 0 && !a.replica.HasState() {
		err := a.boot.Run(ctx)
		var exists *bootstrap.PeerStateError
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return nil //nolint:nilerr // asked to end
		case errors.As(err, &exists):
			a.logger.Info("there is a cluster already; joining it", "node", a.id, "why", err)
			a.say(err.Error())
		default:
			return err
		}
	}
	if err := a.joinUntilTaken(ctx); err != nil {
		return err
	}
	a.noticeRemoval(ctx)
	return nil
}

// lostEvery is the time between two looks of a node with state for a leader; one
// that knew none at two of them asks whether it still belongs to the cluster.
const lostEvery = 5 * time.Second

// noticeRemoval finds out for a node that hears of no leader whether it was taken
// out of the configuration while it was down or cut off: nobody tells it, and its
// own log says that it is in. It asks by a Join, which changes nothing for a node
// that is in.
func (a *Agent) noticeRemoval(ctx context.Context) {
	tick := time.NewTicker(lostEvery)
	defer tick.Stop()
	lost := false
	var pace bootstrap.Pace
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		was := lost
		if lost = a.replica.View().LeaderID == ""; !lost {
			if a.refused.Swap(nil) != nil {
				a.tell()
			}
		}
		if !was || !lost {
			continue
		}
		for _, m := range a.gossip.Members() {
			if !a.joinable(m) {
				continue
			}
			_, err := a.join(ctx, m.ID)
			if info, _ := apierr.From(err); err == nil || info.Reason != apierr.ReasonInvalid {
				continue // in, or nobody knows
			}
			why := fmt.Sprintf("refused by %s: %v", m.ID, err)
			if old := a.refused.Swap(&why); old == nil {
				a.tell()
			}
			if pace.Due(why) {
				a.logger.Error("this node is not part of the cluster any more", "node", a.id, "through", m.ID, "err", err)
			}
			break
		}
	}
}

// joinable says whether a member can tell who leads. One at this node's own address is
// what this node was before it lost its data, which gossip still remembers.
func (a *Agent) joinable(m membership.Member) bool {
	return m.ID != a.id && m.Role == membership.RoleStorage && m.State == membership.Alive && m.HasState &&
		m.RPCAddr != "" && m.RPCAddr != a.address(a.id)
}

// refusal is why a node was not taken in, and by whom it was told.
type refusal struct {
	through string
	err     error
}

// tellsMore says that r is news beside was: a leader has decided, and it is not that
// somebody knows of none.
func (r refusal) tellsMore(was refusal) bool { return was.err == nil || r.decided() && !was.decided() }

func (r refusal) decided() bool {
	info, _ := apierr.From(r.err)
	denied := apierr.PermissionDenied{}
	return info.Reason == apierr.ReasonInvalid || errors.As(info.Err(), &denied)
}

// joinUntilTaken asks nodes of the cluster to take this one in, until Raft's log
// has reached it. Asked again, they change nothing.
func (a *Agent) joinUntilTaken(ctx context.Context) error {
	tick := time.NewTicker(joinEvery)
	defer tick.Stop()
	var pace bootstrap.Pace
	for !a.replica.HasState() {
		gossip, raft := a.gossip.Changes(), a.replica.Changes()
		asked, taken := false, false
		var why refusal
		for _, m := range a.gossip.Members() {
			if !a.joinable(m) {
				continue
			}
			asked = true
			cluster, err := a.join(ctx, m.ID)
			if err == nil {
				err = a.replica.Bind(cluster)
			}
			if taken = err == nil; taken {
				break
			}
			if r := (refusal{m.ID, err}); r.tellsMore(why) {
				why = r
			}
		}
		switch {
		case taken:
			a.say("taken in, waiting for the leader's first entries")
		case asked:
			a.say(fmt.Sprintf("join through %s: %v", why.through, why.err))
			if ctx.Err() == nil && pace.Due(why.err.Error()) {
				a.logger.Warn("not taken in yet", "node", a.id, "through", why.through, "err", why.err)
			}
		default:
			what := "waiting for a node of a cluster to show up in gossip (retry_join)" + a.remembered()
			a.say(what)
			if pace.Due(what) {
				a.logger.Info("no cluster yet", "node", a.id, "why", what)
			}
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

// remembered names the nodes with state that gossip knows and that are not there.
func (a *Agent) remembered() string {
	var gone []string
	for _, m := range a.gossip.Members() {
		if m.ID != a.id && m.Role == membership.RoleStorage && m.State == membership.Failed && m.HasState {
			gone = append(gone, m.ID)
		}
	}
	if len(gone) == 0 {
		return ""
	}
	return "; nodes with state that do not answer: " + strings.Join(gone, ", ") +
		". This node begins no cluster beside theirs: start one of them, or see 'logd recover'; if all they had is gone, restart every node and proxy that remembers them at once"
}

// say notes what this node waits for, for /readyz.
func (a *Agent) say(what string) {
	if before := a.waitsFor.Swap(&what); before != nil && *before == what {
		return
	}
	a.tell()
}

// tell has Follow look again.
func (a *Agent) tell() {
	select {
	case a.said <- struct{}{}:
	default:
	}
}

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
