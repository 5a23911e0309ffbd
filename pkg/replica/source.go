package replica

import (
	"context"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/logd-io/logd/pkg/raftstore"
)

// Source asks other nodes of the cluster for what this one lost. Its calls are
// bounded in time by whoever makes it, and check that the node that answers is
// the one meant and of this cluster: what it says is believed.
type Source interface {
	// Known lists the nodes there is an address for, besides those of the
	// configuration.
	Known() []string
	// Standing tells how a node stands.
	Standing(ctx context.Context, id string) (Standing, error)
	// Entries passes the entries [first, last] of a node to take, a part at a time
	// and in order, as far as the node has them; once without entries when it has
	// none. It returns take's error.
	Entries(ctx context.Context, id string, first, last uint64, take func(Extract) error) error
	// Checkpoint gives a node's newest checkpoint at or below max; Index 0: none.
	Checkpoint(ctx context.Context, id string, max uint64) (Checkpoint, error)
}

// Standing is how another node stands, by its own word.
type Standing struct {
	Term    uint64 // as stored; 0: it does not know
	Running bool   // its Raft runs, so its log is whole above its newest checkpoint
	Leads   bool
	Voters  []string // of its configuration; nil while its Raft does not run
}

// configuration is the newest Raft configuration that the store shows, empty
// when it shows none.
func (r *Replica) configuration() raft.Configuration {
	log := r.store.Log()
	var config raft.Configuration
	from := log.Start().Index
	if c, ok, _ := r.store.Checkpoint(log.Last()); ok {
		config, from = c.Config, c.Index
	}
	for i := from + 1; i <= log.Last(); i++ {
		e, err := log.Entry(i)
		if err != nil || raft.LogType(e.Type) != raft.LogConfiguration {
			continue // what is damaged may have been one, too
		}
		if c, err := raftstore.DecodeConfiguration(e.Data); err == nil {
			config = c
		}
	}
	return config
}

// votersOf gives the ids of a configuration that have a vote.
func votersOf(c raft.Configuration) (ids []string) {
	for _, s := range c.Servers {
		if s.Suffrage == raft.Voter {
			ids = append(ids, string(s.ID))
		}
	}
	return ids
}

// peersOf lists whom to ask: the servers of the configuration, then everybody
// else there is an address for, without this node.
func (r *Replica) peersOf(c raft.Configuration) []string {
	var ids []string
	add := func(id string) {
		if id != r.cfg.ID && !slices.Contains(ids, id) && len(ids) < maxPeers {
			ids = append(ids, id)
		}
	}
	for _, s := range c.Servers {
		add(string(s.ID))
	}
	for _, id := range r.cfg.Source.Known() {
		add(id)
	}
	return ids
}
