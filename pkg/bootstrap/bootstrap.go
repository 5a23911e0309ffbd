package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/go-hclog"
)

// Peer is another storage node, as gossip tells of it. Nodes that left are not
// among them.
type Peer struct {
	ID       string
	Expect   int    // its bootstrap_expect; 0: it only joins
	HasState bool   // it is, or was, in a cluster
	Cluster  string // uuid, if known
	Alive    bool
}

// Peers is what gossip knows. Both functions return at once.
type Peers interface {
	Peers() []Peer
	Changes() <-chan struct{} // closed when Peers differs from now
}

// Asker asks another node for its promise, once. It returns nil only when that
// node has granted it, and a *RefusedError only when it has said no.
type Asker interface {
	Promise(ctx context.Context, id string, p Promise) error
}

// Replica is what bootstrap needs of this node's Raft.
type Replica interface {
	HasState() bool
	// Bind makes the node, durably, one of the cluster; again the same is nothing.
	Bind(uuid string) error
	Bootstrap(ctx context.Context, uuid string, servers []string) error
	Changes() <-chan struct{} // closed at the next change, HasState's among them
}

// Config is what New needs.
type Config struct {
	ID      string
	Expect  int // 0: this node never bootstraps and promises nothing
	Store   *Store
	Replica Replica
	Peers   Peers
	Asker   Asker
	// Bound returns the uuid this node is bound to, "" for none; nil: always "".
	Bound func() string

	Retry   time.Duration // between rounds of asking; 0: 500 ms
	Settle  time.Duration // how long too many candidates may be seen; 0: 10 s
	NewUUID func() string // nil: random
	Logger  hclog.Logger  // nil: quiet
}

// Bootstrap is one node's part in beginning a cluster.
type Bootstrap struct {
	cfg Config
	log hclog.Logger
	// Held while a promise is checked and made, so that what was checked holds.
	granting sync.Mutex
}

// New returns a Bootstrap. Grant may be called from then on.
func New(cfg Config) *Bootstrap {
	if cfg.Bound == nil {
		cfg.Bound = func() string { return "" }
	}
	if cfg.Retry <= 0 {
		cfg.Retry = 500 * time.Millisecond
	}
	if cfg.Settle <= 0 {
		// Longer than gossip takes to see that a node has died.
		cfg.Settle = 10 * time.Second
	}
	if cfg.NewUUID == nil {
		cfg.NewUUID = uuid.NewString
	}
	if cfg.Logger == nil {
		cfg.Logger = hclog.NewNullLogger()
	}
	return &Bootstrap{cfg: cfg, log: cfg.Logger}
}

// Grant promises what another node asks for, and returns when the promise is on
// disk and the node is bound to the cluster. The caller has checked that the
// request comes from the initiator. What it refuses, it refuses for ever:
// *PromisedError, *HasStateError, *ExpectError, *InvalidError.
func (b *Bootstrap) Grant(_ context.Context, cluster, initiator string, servers []string) error {
	p := Promise{Cluster: cluster, Initiator: initiator, Servers: servers}
	if err := p.check(); err != nil {
		return err
	}
	if !slices.Contains(servers, b.cfg.ID) {
		return &InvalidError{fmt.Sprintf("%s is not one of %q", b.cfg.ID, servers)}
	}
	if len(servers) != b.cfg.Expect {
		return &ExpectError{ID: initiator, Expect: len(servers), Wanted: b.cfg.Expect}
	}
	if initiator == b.cfg.ID {
		return &InvalidError{"a node asks itself by making its promise"}
	}
	b.granting.Lock()
	defer b.granting.Unlock()
	// Also for a promise that was made: state comes from the initiator only after
	// it bootstrapped, so one that asks now has lost what it had.
	if b.cfg.Replica.HasState() {
		return &HasStateError{ID: b.cfg.ID, Cluster: b.cfg.Bound()}
	}
	_, had := b.cfg.Store.Promised()
	if bound := b.cfg.Bound(); !had && bound != "" && bound != cluster {
		return &HasStateError{ID: b.cfg.ID, Cluster: bound}
	}
	if err := b.cfg.Store.Make(p); err != nil {
		return err
	}
	if !had {
		b.log.Info("promised", "node", b.cfg.ID, "cluster", cluster, "initiator", initiator, "servers", servers)
	}
	return b.cfg.Replica.Bind(cluster)
}

// Run takes this node to where it has Raft state, and then returns nil: by
// bootstrapping it, or by waiting for the one that does. A node that was bound to
// a cluster otherwise, or expects nobody, needs no bootstrap; for it, too, Run
// returns nil. It stops
// with *TooManyError, *PeerStateError, *ExpectError or *RefusedError when an
// operator has to decide, and with context.Cause when ctx ends.
func (b *Bootstrap) Run(ctx context.Context) error {
	if b.cfg.Expect <= 0 {
		return nil
	}
	retry := time.NewTimer(b.cfg.Retry)
	defer retry.Stop()
	var crowded time.Time   // since when there are too many; zero: there are not
	var granted []string    // who has promised us, in this life
	var waitingFor []string // the last told
	for {
		peers, raft := b.cfg.Peers.Changes(), b.cfg.Replica.Changes()
		if b.cfg.Replica.HasState() {
			return nil
		}
		p, promised := b.cfg.Store.Promised()
		switch {
		case promised && p.Initiator == b.cfg.ID:
			var err error
			if granted, err = b.ask(ctx, p, granted); err != nil {
				return err
			}
			if len(granted) == len(p.Servers)-1 {
				return b.carryOut(ctx, p)
			}
		case promised:
			// A crash may have come between the promise and this.
			if err := b.cfg.Replica.Bind(p.Cluster); err != nil {
				return err
			}
		case b.cfg.Bound() != "":
			return nil
		default:
			servers, err := decide(b.cfg.ID, b.cfg.Expect, b.cfg.Peers.Peers())
			var many *TooManyError
			if errors.As(err, &many) {
				// One of them may have died, and gossip not know it yet.
				if crowded.IsZero() {
					crowded = time.Now()
				}
				if time.Since(crowded) < b.cfg.Settle {
					break
				}
			}
			if err != nil {
				return err
			}
			crowded = time.Time{}
			switch {
			case len(servers) < b.cfg.Expect:
				if !slices.Equal(servers, waitingFor) {
					b.log.Info("waiting for nodes to bootstrap with", "node", b.cfg.ID, "expect", b.cfg.Expect, "here", servers)
					waitingFor = servers
				}
			case servers[0] == b.cfg.ID:
				if err := b.initiate(servers); err != nil {
					return err
				}
				continue // with the promise that was made, or came in between
			}
		}
		retry.Reset(b.cfg.Retry)
		select {
		case <-peers:
		case <-raft:
		case <-retry.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// decide returns the candidates, ascending: this node and the others that could
// begin a cluster with it. With exactly expect of them the first is the
// initiator. It errs when only an operator can tell what is meant.
func decide(self string, expect int, peers []Peer) ([]string, error) {
	var stateful []Peer
	for _, p := range peers {
		if p.ID != self && p.HasState {
			stateful = append(stateful, p) // alive or not: it may only be cut off
		}
	}
	if len(stateful) > 0 {
		slices.SortFunc(stateful, func(a, b Peer) int { return strings.Compare(a.ID, b.ID) })
		return nil, &PeerStateError{Peers: stateful}
	}
	candidates := []string{self}
	for _, p := range peers {
		if p.ID == self || !p.Alive || p.Expect == 0 {
			continue
		}
		if p.Expect != expect {
			return nil, &ExpectError{ID: p.ID, Expect: p.Expect, Wanted: expect}
		}
		candidates = append(candidates, p.ID)
	}
	slices.Sort(candidates)
	candidates = slices.Compact(candidates)
	if len(candidates) > expect {
		return nil, &TooManyError{Expect: expect, Candidates: candidates}
	}
	return candidates, nil
}

// initiate promises ourselves to a new cluster, if nothing came in between.
func (b *Bootstrap) initiate(servers []string) error {
	b.granting.Lock()
	defer b.granting.Unlock()
	if _, promised := b.cfg.Store.Promised(); promised || b.cfg.Replica.HasState() || b.cfg.Bound() != "" {
		return nil
	}
	p := Promise{Cluster: b.cfg.NewUUID(), Initiator: b.cfg.ID, Servers: servers}
	if err := b.cfg.Store.Make(p); err != nil {
		return err
	}
	b.log.Info("initiating a cluster", "node", b.cfg.ID, "cluster", p.Cluster, "servers", servers)
	return nil
}

// ask asks at once everybody who has not granted yet, and returns who has.
func (b *Bootstrap) ask(ctx context.Context, p Promise, granted []string) ([]string, error) {
	type answer struct {
		id  string
		err error
	}
	answers := make(chan answer, len(p.Servers)) // one each: no asker waits
	asked := 0
	for _, id := range p.Servers {
		if id == b.cfg.ID || slices.Contains(granted, id) {
			continue
		}
		asked++
		go func() { answers <- answer{id, b.cfg.Asker.Promise(ctx, id, p)} }()
	}
	var refused error
	for range asked {
		a := <-answers
		var no *RefusedError
		switch {
		case a.err == nil:
			granted = append(granted, a.id)
		case errors.As(a.err, &no):
			refused = errors.Join(refused, no)
		default:
			b.log.Debug("no answer about the promise yet", "peer", a.id, "err", a.err)
		}
	}
	if ctx.Err() != nil {
		return granted, context.Cause(ctx)
	}
	return granted, refused
}

// carryOut bootstraps: every server has promised.
func (b *Bootstrap) carryOut(ctx context.Context, p Promise) error {
	if err := b.cfg.Replica.Bootstrap(ctx, p.Cluster, p.Servers); err != nil {
		return fmt.Errorf("bootstrap %s: %w", p, err)
	}
	b.log.Info("bootstrapped", "node", b.cfg.ID, "cluster", p.Cluster, "servers", p.Servers)
	return nil
}
