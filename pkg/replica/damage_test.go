package replica_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/replica"
	"github.com/logd-io/logd/pkg/vfs"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

// peers is a replica.Source over a cluster in memory. It goes the way of dial.
type peers struct {
	c  *cluster
	id string
}

func (p peers) of(id string) (*replica.Replica, error) {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	n := p.c.nodes[id]
	if n == nil || n.r == nil || p.c.cut[[2]string{p.id, id}] || p.c.cut[[2]string{id, p.id}] {
		return nil, errors.New("connection refused")
	}
	return n.r, nil
}

func (p peers) Known() []string { return nil }

func (p peers) Standing(_ context.Context, id string) (s replica.Standing, err error) {
	r, err := p.of(id)
	if err != nil {
		return s, err
	}
	v := r.View()
	s = replica.Standing{Term: r.Stats().Term, Running: v.State != replica.StateIdle, Leads: v.State == replica.StateLeader}
	for _, x := range v.Peers {
		if x.Voter {
			s.Voters = append(s.Voters, x.ID)
		}
	}
	return s, nil
}

func (p peers) Entries(ctx context.Context, id string, first, last uint64, take func(replica.Extract) error) error {
	for begin := true; first <= last && first != 0; begin = false {
		r, err := p.of(id)
		if err != nil {
			return err
		}
		x, err := r.Entries(first, last, 1<<10)
		if err != nil || len(x.Entries) == 0 && !begin {
			return err
		}
		if err := take(x); err != nil || len(x.Entries) == 0 {
			return err
		}
		first += uint64(len(x.Entries))
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

func (p peers) Checkpoint(_ context.Context, id string, max uint64) (replica.Checkpoint, error) {
	r, err := p.of(id)
	if err != nil {
		return replica.Checkpoint{}, err
	}
	return r.NewestCheckpoint(max)
}

// files lists the files of one kind in a node's directory, sorted.
func files(t require.TestingT, fs *memfs.FS, kind string) (names []string) {
	dir, suffix := "data/log", kind
	switch kind {
	case "checkpoint":
		dir, suffix = "data/checkpoints", ".ckp"
	case "stable":
		const name = "data/raft-state"
		if _, err := fs.Stat(name); err != nil {
			return nil // it was removed before, and no scrub has come by
		}
		return []string{name}
	}
	all, err := fs.List(dir)
	require.NoError(t, err)
	for _, n := range all {
		if strings.HasSuffix(n, suffix) {
			names = append(names, path.Join(dir, n))
		}
	}
	slices.Sort(names)
	return names
}

// ruin damages a file, durably, and says how; "" if there was nothing to damage.
func ruin(t require.TestingT, fs *memfs.FS, name, how string, rng *rand.Rand) string {
	b, err := vfs.ReadFile(fs, name)
	require.NoError(t, err)
	end := len(b)
	for end > 0 && b[end-1] == 0 {
		end-- // preallocated
	}
	if end == 0 {
		return ""
	}
	f, err := fs.OpenReadWrite(name)
	require.NoError(t, err)
	defer f.Close()
	at := rng.IntN(end)
	switch how {
	case "flip":
		require.NoError(t, fs.Corrupt(name, int64(at), 1<<rng.IntN(8)))
	case "zero":
		from := at &^ 511
		to := min(len(b), from+512*(1+rng.IntN(8)))
		_, err = f.WriteAt(make([]byte, to-from), int64(from))
		require.NoError(t, err)
		require.NoError(t, f.Sync())
	case "truncate":
		require.NoError(t, f.Truncate(int64(at)))
		require.NoError(t, f.Sync())
	default:
		require.Fail(t, how)
	}
	return fmt.Sprintf("%s %s at %d of %d", how, path.Base(name), at, end)
}

// exchange swaps the contents of two files.
func exchange(t require.TestingT, fs *memfs.FS, a, b string) string {
	var both [2][]byte
	for i, n := range []string{a, b} {
		var err error
		both[i], err = vfs.ReadFile(fs, n)
		require.NoError(t, err)
	}
	for i, n := range []string{b, a} {
		f, err := fs.OpenReadWrite(n)
		require.NoError(t, err)
		require.NoError(t, f.Truncate(int64(len(both[i]))))
		_, err = f.WriteAt(both[i], 0)
		require.NoError(t, err)
		require.NoError(t, f.Sync())
		require.NoError(t, f.Close())
	}
	return fmt.Sprintf("swap %s and %s", path.Base(a), path.Base(b))
}
