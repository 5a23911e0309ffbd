package replica_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/replica"
)

// shelf is a replica.Source of one node that has some entries and nothing else.
type shelf struct {
	id string

	mu      sync.Mutex
	closed  bool // it answers nothing; guarded by mu
	entries []commitlog.Entry
}

func (s *shelf) open() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = false
}

func (s *shelf) Known() []string { return []string{s.id} }

func (s *shelf) Standing(context.Context, string) (replica.Standing, error) {
	return replica.Standing{}, errors.New("connection refused")
}

func (s *shelf) Checkpoint(context.Context, string, uint64) (replica.Checkpoint, error) {
	return replica.Checkpoint{}, errors.New("connection refused")
}

func (s *shelf) Entries(_ context.Context, id string, first, last uint64, take func(replica.Extract) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || id != s.id {
		return errors.New("connection refused")
	}
	x := replica.Extract{First: s.entries[0].Index, Last: s.entries[len(s.entries)-1].Index}
	for _, e := range s.entries {
		if first <= e.Index && e.Index <= last {
			x.Entries = append(x.Entries, e)
		}
	}
	return take(x)
}

// I7, I23: the leader's checkpoint is at an entry that is damaged here. Whether this
// node holds it cannot be told, so it says neither, is repaired, and goes on.
func TestACheckpointAtADamagedEntry(t *testing.T) {
	t.Parallel()
	meta, state := checkpointOf(t, 5)
	last := meta.Index + 10
	stale := entries(2, last, 3, "stale")
	source := &shelf{id: nodeID(3), closed: true}
	for _, e := range stale {
		source.entries = append(source.entries, commitlog.Entry{Index: e.Index, Term: e.Term, Type: uint8(e.Type), Data: e.Data})
	}
	c, n, p := follower(t)
	require.NoError(t, n.stop())
	conf := c.conf
	c.conf = func(cfg *replica.Config) {
		conf(cfg)
		cfg.CacheBytes = 1 // what is read comes from the disk
		cfg.Source = source
	}
	n.start()
	n.await("raft runs", func(v replica.View) bool { return v.State == replica.StateFollower })
	resp, err := p.appendEntries(n.id, 3, 1, 1, 1, stale...)
	require.NoError(t, err)
	require.True(t, resp.Success)
	_, err = p.appendEntries(n.id, 4, 0, 0, 0)
	require.NoError(t, err)

	n.flipAt(stale[meta.Index-2].Data, true)
	_, err = p.install(n.id, 4, meta, 4, state)
	require.Error(t, err, "or the connection ends, with Raft")
	c.eventually(func() bool { return n.r.WaitsFor() != "" && n.r.Raft() == nil }, "it waits for the repair")
	source.open()
	n.await("raft runs", func(v replica.View) bool { return v.State == replica.StateFollower })
	require.Zero(t, n.r.Stats().Damaged)
	require.Equal(t, last, n.r.Log().Last())

	// Now it is known: a contradiction, above everything committed.
	_, err = p.appendEntries(n.id, 4, 0, 0, 0)
	require.NoError(t, err)
	c.eventually(func() bool {
		var got raft.InstallSnapshotResponse
		got, err = p.install(n.id, 4, meta, 4, state)
		return err == nil && got.Success
	}, "installed")
	require.Equal(t, meta.Index, n.r.Log().Start().Index)
}
