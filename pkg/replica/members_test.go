package replica_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/replica"
	"github.com/logd-io/logd/pkg/vfs/faultfs"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

func TestNames(t *testing.T) {
	fs := memfs.New()
	id, err := replica.LoadNodeID(fs, "data", "storage-1")
	require.NoError(t, err)
	require.Equal(t, "storage-1", replica.NameOf(id))
	again, err := replica.LoadNodeID(fs.Crash(1), "data", "storage-1")
	require.NoError(t, err)
	require.Equal(t, id, again, "made once, durably")
	other, err := replica.LoadNodeID(memfs.New(), "data", "storage-1")
	require.NoError(t, err)
	require.NotEqual(t, id, other, "a wiped directory is a new node")
	for _, bad := range []string{"", "x", "x.0", ".00000000", "x.0000000g", "x.ABCDEF00"} {
		require.Empty(t, replica.NameOf(bad), bad)
	}
	_, err = replica.LoadNodeID(fs, "data", "")
	require.Error(t, err)
	for _, kind := range []faultfs.Kind{faultfs.List, faultfs.Open, faultfs.Read, faultfs.Size} {
		sick := faultfs.Wrap(fs, faultfs.When(faultfs.Is(kind), faultfs.Fail(syscall.EIO)))
		got, err := replica.LoadNodeID(sick, "data", "storage-1")
		require.True(t, err != nil || got == id, "%s fails: %s instead of %s", kind, got, id)
	}
	again, err = replica.LoadNodeID(fs, "data", "storage-1")
	require.NoError(t, err)
	require.Equal(t, id, again, "a disk that cannot be read makes nobody a new node")
}

func TestANameBelongsToOneID(t *testing.T) {
	t.Parallel()
	c := boot(t, 3, nil)
	l := c.leader()
	ctx := context.Background()
	var taken *replica.NameTakenError
	require.ErrorAs(t, l.r.AddNonvoter(ctx, "n2.ffffffff"), &taken)
	require.Equal(t, nodeID(2), taken.ID)
	require.ErrorAs(t, l.r.AddVoter(ctx, "n2.ffffffff"), &taken)
	var invalid *replica.InvalidError
	require.ErrorAs(t, l.r.AddNonvoter(ctx, "n9"), &invalid)
	require.NoError(t, l.r.AddNonvoter(ctx, nodeID(2)), "it is a voter already, and stays one")
	require.Len(t, l.r.Peers(), 3)

	gone := c.node(nodeID(2))
	if gone == l {
		gone = c.node(nodeID(3))
	}
	require.NoError(t, gone.stop())
	require.NoError(t, l.r.RemovePeer(ctx, gone.id))
	fresh := c.add(replica.NameOf(gone.id) + ".ffffffff")
	fresh.start()
	require.NoError(t, fresh.r.Bind(testCluster))
	require.NoError(t, l.r.AddNonvoter(ctx, fresh.id))
	c.produce([16]byte{1}, 0, "a")
	fresh.visible(1)
	fresh.await("peers", func(v replica.View) bool {
		for _, p := range v.Peers {
			if p == (replica.Peer{ID: fresh.id}) {
				return true
			}
		}
		return false
	})
	for _, n := range c.up() {
		if n != l {
			var notLeader *replica.NotLeaderError
			require.ErrorAs(t, n.r.RemovePeer(ctx, l.id), &notLeader)
		}
	}
}

func TestALeaderThatRemovesItselfStops(t *testing.T) {
	t.Parallel()
	c := boot(t, 3, nil)
	l := c.leader()
	c.produce([16]byte{1}, 0, "a")
	_ = l.r.RemovePeer(context.Background(), l.id) // it may stop before it can answer
	require.ErrorIs(t, <-l.ended, replica.ErrRaftStopped)
	c.mu.Lock()
	r := l.r
	l.r = nil
	c.mu.Unlock()
	require.NoError(t, r.Close())
	c.produce([16]byte{1}, 1, "b")
}

func TestBind(t *testing.T) {
	c := newCluster(t, nil)
	n := c.add(nodeID(1))
	n.start()
	var mismatch *replica.ClusterMismatchError
	var invalid *replica.InvalidError
	require.ErrorAs(t, n.r.Bind("not a uuid"), &invalid)
	require.NoError(t, n.r.Bind(testCluster))
	require.NoError(t, n.r.Bind(testCluster))
	require.ErrorAs(t, n.r.Bind("11111111-0000-4000-8000-000000000000"), &mismatch)
	require.False(t, n.r.HasState())
	n.lose(3)
	n.start()
	require.Equal(t, testCluster, n.r.View().ClusterID)
	require.ErrorAs(t, n.r.Bootstrap(context.Background(), "11111111-0000-4000-8000-000000000000", []string{n.id}), &mismatch)
	require.ErrorAs(t, n.r.Bootstrap(context.Background(), testCluster, []string{nodeID(2)}), &invalid)
	require.NoError(t, n.r.Bootstrap(context.Background(), testCluster, []string{n.id}))
	require.True(t, n.r.HasState())
	require.ErrorIs(t, n.r.Bootstrap(context.Background(), testCluster, []string{n.id}), replica.ErrHasState)
	require.Equal(t, n.id, c.leader().id)
}

// A crash at any operation inside Bootstrap can be followed by another one.
func TestBootstrapCrashesAnywhere(t *testing.T) {
	c := newCluster(t, nil)
	n := c.add(nodeID(1))
	r := n.open()
	n.fs.Record()
	require.NoError(t, r.Bootstrap(context.Background(), testCluster, []string{n.id}))
	require.NoError(t, r.Close())
	whole := n.fs
	again := 0
	for op := range whole.Ops() + 1 {
		for seed := range uint64(3) {
			n.fs = whole.CrashAt(op, seed)
			r := n.open()
			if !r.HasState() {
				again++
				require.NoError(t, r.Bootstrap(context.Background(), testCluster, []string{n.id}))
			}
			require.True(t, r.HasState())
			var l raft.Log
			require.NoError(t, r.Store().GetLog(1, &l))
			require.Equal(t, raft.LogConfiguration, l.Type)
			require.NoError(t, r.Close())
		}
	}
	require.NotZero(t, again)
	n.fs = whole
	n.start()
	require.Equal(t, n.id, c.leader().id)
}

// I14: after a failed sync nothing more is answered by this node; Run says so,
// and the others go on without a lost record.
func TestAFailedSyncEndsTheNode(t *testing.T) {
	t.Parallel()
	failing := make(chan struct{})
	broken := errors.New("disk broken")
	rule := faultfs.When(faultfs.All(faultfs.Is(faultfs.Sync), func(faultfs.Op) bool {
		select {
		case <-failing:
			return true
		default:
			return false
		}
	}), faultfs.Fail(broken))
	c := boot(t, 3, func(cfg *replica.Config) {
		if cfg.ID == nodeID(1) {
			cfg.FS = faultfs.Wrap(cfg.FS, rule)
		}
	})
	n := c.node(nodeID(1))
	for i := range 10 {
		c.produce([16]byte{1}, uint64(i), "before")
	}
	close(failing)
	for i := range 10 {
		c.produce([16]byte{1}, uint64(10+i), "after")
	}
	var fatal *replica.FatalError
	err := <-n.ended
	require.ErrorAs(t, err, &fatal)
	require.ErrorIs(t, err, broken)
	c.mu.Lock()
	r := n.r
	n.r = nil
	c.mu.Unlock()
	_, err = r.Submit(one("x"))
	require.Error(t, err)
	_ = r.Close() // a failed log may say so again
	require.Equal(t, uint64(20), c.leader().r.Log().Visible())
}

// Only one replica may own a data directory.
func TestTheDirectoryIsLocked(t *testing.T) {
	c := newCluster(t, nil)
	n := c.add(nodeID(1))
	r := n.open()
	_, err := replica.Open(replica.Config{ID: n.id, FS: n.fs, Dir: "data"})
	require.ErrorContains(t, err, "lock")
	require.NoError(t, r.Close())
	require.NoError(t, r.Close())
	require.ErrorIs(t, r.Run(context.Background()), replica.ErrClosed)
}

// committing adds what RestoreCommittedLogs asks of a log store.
type committing struct {
	raft.LogStore
	commit uint64
}

func (c *committing) StageCommitIndex(i uint64) error { return nil }
func (c *committing) GetCommitIndex() (uint64, error) { return c.commit, nil }

type nullFSM struct{}

func (nullFSM) Apply(*raft.Log) any                 { return nil }
func (nullFSM) Snapshot() (raft.FSMSnapshot, error) { return nil, errors.New("none") }
func (nullFSM) Restore(r io.ReadCloser) error       { return r.Close() }

// RestoreCommittedLogs stays off because v1.8.0 then forgets every configuration
// entry between the newest checkpoint and the commit index. Should this test
// fail after an upgrade, the setting may be thought about again.
func TestWhyRestoreCommittedLogsIsOff(t *testing.T) {
	for _, on := range []bool{false, true} {
		c := newCluster(t, nil)
		n := c.add(nodeID(1))
		r := n.open()
		require.NoError(t, r.Bootstrap(context.Background(), testCluster, []string{nodeID(1), nodeID(2), nodeID(3)}))
		store := r.Store()
		require.NoError(t, store.StoreLogs(entries(2, 5, 1, "a")))
		conf := raft.DefaultConfig()
		conf.LocalID = raft.ServerID(n.id)
		conf.HeartbeatTimeout, conf.ElectionTimeout = time.Hour, time.Hour
		conf.LogOutput = io.Discard
		conf.RestoreCommittedLogs = on
		_, trans := raft.NewInmemTransport(raft.ServerAddress(n.id))
		ra, err := raft.NewRaft(conf, nullFSM{}, &committing{store, 5}, store, store.Snapshots(), trans)
		require.NoError(t, err)
		f := ra.GetConfiguration()
		require.NoError(t, f.Error())
		want := 3
		if on {
			want = 0 // the node does not know its cluster any more
		}
		require.Len(t, f.Configuration().Servers, want, "RestoreCommittedLogs %v", on)
		require.NoError(t, ra.Shutdown().Error())
		require.NoError(t, r.Close())
	}
}

// I24: a leader whose disk has no room for a configuration does not go on with it.
// Raft alone would: it sets it before it is stored.
func TestARefusedConfigurationIsForgotten(t *testing.T) {
	for _, off := range []replica.Switch{"", replica.NoForget} {
		t.Run(fmt.Sprintf("without %q", off), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for records := 0; ; records++ { // until it is the configuration that needs another segment
					if refusedConfiguration(t, records, off) {
						return
					}
				}
			})
		})
	}
}

// refusedConfiguration adds a node to a cluster of one whose disk has room for one
// segment, after so many records, and says whether there was none for that.
func refusedConfiguration(t *testing.T, records int, off replica.Switch) bool {
	full := &faultfs.Switch{}
	c := newCluster(t, func(cfg *replica.Config) {
		cfg.SegmentBytes = 4096
		cfg.FS = faultfs.Wrap(cfg.FS, faultfs.When(faultfs.All(full.On, grows), faultfs.Fail(syscall.ENOSPC)))
	}, off)
	n := c.add(nodeID(1))
	n.start()
	defer func() { require.NoError(t, n.stop()) }()
	require.NoError(t, n.r.Bootstrap(t.Context(), testCluster, []string{n.id}))
	c.leader()
	full.Set(true)
	for i := range records {
		c.produce([16]byte{1}, uint64(i), "x")
	}
	err := n.r.AddNonvoter(t.Context(), nodeID(9))
	if err == nil {
		return false
	}
	full.Set(false)
	c.leader()
	c.produce([16]byte{1}, uint64(records), "after")
	if off != "" {
		require.Len(t, n.r.Peers(), 2, "this is what starting again prevents")
		return true
	}
	require.Len(t, n.r.Peers(), 1)
	require.NoError(t, n.r.AddNonvoter(t.Context(), nodeID(9)))
	require.Len(t, n.r.Peers(), 2)
	return true
}
