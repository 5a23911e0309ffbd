package replica_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/bootstrap"
	"github.com/logd-io/logd/pkg/raftstore"
	"github.com/logd-io/logd/pkg/replica"
	"github.com/logd-io/logd/pkg/vfs"
	"github.com/logd-io/logd/pkg/vfs/faultfs"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

// beginner is a node that begins a cluster of three: what promises with Raft's
// real store below, and a disk that has trouble.
type beginner struct {
	t  *testing.T
	fs *memfs.FS
}

// company is who gossip knows.
type company []string

func (c company) Peers() (all []bootstrap.Peer) {
	for _, id := range c {
		all = append(all, bootstrap.Peer{ID: id, Expect: 3, Alive: true})
	}
	return all
}
func (company) Changes() <-chan struct{} { return nil }

// willing grant what they are asked for.
type willing struct{}

func (willing) Promise(context.Context, string, bootstrap.Promise) error { return nil }

// begin has the node do its part on fsys, together with others, as far as it comes,
// and says what it then has promised.
func (b *beginner) begin(fsys vfs.FS, others ...string) (p bootstrap.Promise, promised bool, err error) {
	r, err := replica.Open(replica.Config{ID: nodeID(1), FS: fsys, Dir: "data", SegmentBytes: 1 << 20, Heartbeat: time.Second})
	if err != nil {
		return p, false, err
	}
	defer func() { _ = r.Close() }() // after a fault it says so again
	store, err := bootstrap.Open(fsys, "data")
	if err != nil {
		return p, false, err
	}
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	err = bootstrap.New(bootstrap.Config{
		ID: nodeID(1), Expect: 3, Store: store, Replica: r, Peers: company(others), Asker: willing{},
		Bound:   func() string { return r.View().ClusterID },
		NewUUID: uuid.NewString,
		Retry:   time.Millisecond,
	}).Run(ctx)
	p, promised = store.Promised()
	return p, promised, err
}

// requireBegun holds what is on the disk against the promise: its cluster, and entry 1
// with its list.
func (b *beginner) requireBegun(p bootstrap.Promise) {
	b.t.Helper()
	r, err := replica.Open(replica.Config{ID: nodeID(1), FS: b.fs, Dir: "data", SegmentBytes: 1 << 20, Heartbeat: time.Second})
	require.NoError(b.t, err)
	defer func() { require.NoError(b.t, r.Close()) }()
	require.True(b.t, r.HasState())
	require.Equal(b.t, p.Cluster, r.View().ClusterID)
	var l raft.Log
	require.NoError(b.t, r.Store().GetLog(1, &l))
	require.Equal(b.t, raft.LogConfiguration, l.Type)
	config, err := raftstore.DecodeConfiguration(l.Data)
	require.NoError(b.t, err)
	var servers []string
	for _, s := range config.Servers {
		servers = append(servers, string(s.ID))
	}
	require.Equal(b.t, p.Servers, servers)
	term, err := r.Store().GetUint64([]byte("CurrentTerm"))
	require.NoError(b.t, err)
	require.Equal(b.t, uint64(1), term)
	last, err := r.Store().LastIndex()
	require.NoError(b.t, err)
	require.Equal(b.t, uint64(1), last)
}

// Any operation of the beginning fails, from the promise to entry 1, or is the last
// one before the power goes. Started again in other company, the node begins what it
// has promised, and where it had promised nothing, once and whole what it does now.
func TestTroubleWhileItBegins(t *testing.T) {
	first, later := []string{nodeID(2), nodeID(3)}, []string{nodeID(4), nodeID(5)}
	changes := []faultfs.Kind{faultfs.Create, faultfs.Write, faultfs.Truncate, faultfs.Allocate, faultfs.Sync, faultfs.SyncDir, faultfs.Rename, faultfs.Remove}
	kept, interrupted := 0, 0
	for name, then := range map[string]faultfs.Action{
		"EIO": faultfs.Fail(syscall.EIO), "no space": faultfs.Fail(syscall.ENOSPC), "one sector of a write": faultfs.Short(512, syscall.EIO),
	} {
		t.Run(name, func(t *testing.T) {
			for n := int64(1); ; n++ {
				var met atomic.Bool
				sick := func(fsys vfs.FS) vfs.FS {
					nth := faultfs.Nth(n)
					return faultfs.Wrap(fsys, faultfs.When(faultfs.All(faultfs.Is(changes...), nth), func(op faultfs.Op) (int, error) {
						met.Store(true)
						return then(op)
					}))
				}
				b := &beginner{t, memfs.NewRecording()}
				p, _, err := b.begin(sick(b.fs), first...)
				if !met.Load() {
					require.NoError(t, err)
					b.requireBegun(p)
					require.Greater(t, n, int64(10), "that many places to fail at")
					return
				}
				for _, power := range []bool{false, true} {
					after := &beginner{t, b.fs.Kill()}
					if power {
						after.fs = b.fs.Crash(uint64(n))
					}
					before, err := bootstrap.Open(after.fs, "data")
					require.NoError(t, err, "a promise is there or not")
					had, promised := before.Promised()
					halfway(t, after.fs, &interrupted)
					got, _, err := after.begin(after.fs, later...)
					require.NoError(t, err, "operation %d", n)
					if promised {
						kept++
						require.Equal(t, had, got, "operation %d", n)
					} else {
						got, promised, err = after.begin(after.fs, later...)
						require.NoError(t, err)
						require.True(t, promised)
						require.Equal(t, append([]string{nodeID(1)}, later...), got.Servers)
					}
					after.requireBegun(got)
				}
			}
		})
	}
	require.NotZero(t, kept)
	require.NotZero(t, interrupted, "term 1 without entry 1 was met")
}

// halfway counts the disks that a failed BootstrapCluster left at term 1 without entry 1.
func halfway(t *testing.T, fsys *memfs.FS, count *int) {
	t.Helper()
	r, err := replica.Open(replica.Config{ID: nodeID(1), FS: fsys, Dir: "data", SegmentBytes: 1 << 20, Heartbeat: time.Second})
	require.NoError(t, err)
	defer func() { require.NoError(t, r.Close()) }()
	term, _ := r.Store().GetUint64([]byte("CurrentTerm")) // none yet: 0
	last, err := r.Store().LastIndex()
	require.NoError(t, err)
	if term == 1 && last == 0 {
		*count++
		require.False(t, r.HasState(), fmt.Sprintf("term %d, last %d", term, last))
	}
}
