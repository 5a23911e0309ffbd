package replica_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/replica"
)

// small makes many segments and checkpoints of few records.
func small(cfg *replica.Config) {
	cfg.Heartbeat = 300 * time.Millisecond
	cfg.CheckpointEntries = 24
	cfg.SegmentBytes, cfg.CacheBytes = 4096, 2048
}

// raw gives the entries of a node, each of which must be readable.
func (n *node) raw() (all []commitlog.Entry) {
	n.c.t.Helper()
	log := n.r.Log()
	for i := log.First(); i <= log.Last(); i++ {
		e, err := log.Entry(i)
		require.NoError(n.c.t, err, n.id)
		e.AppendedAt = 0
		if len(e.Data) == 0 {
			e.Data = nil
		}
		all = append(all, e)
	}
	return all
}

// healed waits until nothing is damaged on n, and it follows or leads.
func (n *node) healed() {
	n.c.t.Helper()
	var s replica.Stats
	for end := time.Now().Add(2 * testPatience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if s = n.r.Stats(); s.State != replica.StateIdle && s.Damaged == 0 && n.r.WaitsFor() == "" && !n.r.Store().Damage().Blocked {
			return
		}
	}
	require.Fail(n.c.t, "not repaired", "%s: %s, %d damaged, waits for %s", n.id, s.State, s.Damaged, n.r.WaitsFor())
}

// I23: for every kind of file and damage, on a node that is down: it comes back, takes
// no part before it is whole, and ends with the same entries as the others.
func TestADamagedNodeIsRepairedFromPeers(t *testing.T) {
	seed := uint64(simSeed(t))
	for _, kind := range []string{"sealed", "tail", "offsets", "checkpoint", "all checkpoints", "stable", "durable", "start"} {
		for _, how := range []string{"flip", "zero", "truncate", "swap", "remove"} {
			t.Run(kind+"/"+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					rng := rand.New(rand.NewPCG(seed, uint64(len(kind)*100+len(how))))
					c := boot(t, 3, small)
					s := &sim{cluster: c, rng: rng, acked: map[uint64]string{}, seq: map[[16]byte]uint64{}, sent: map[string]int{}}
					for range 150 {
						s.put([16]byte{1})
					}
					s.equal()
					n := s.node(nodeID(1 + rng.IntN(3)))
					_ = n.stop()
					done := damage(t, n, kind, how, rng)
					if done == "" {
						t.Skip("no such file")
					}
					t.Logf("%s: %s", n.id, done)
					for range 20 {
						s.put([16]byte{2})
					}
					n.start()
					n.provoke()
					n.healed()
					for range 20 {
						s.put([16]byte{1})
					}
					s.check()
					want := s.leader().raw()
					for _, x := range s.ordered() {
						x.healed()
						require.Equal(t, want, x.raw(), x.id)
					}
					c.close()
				})
			})
		}
	}
}

// damage ruins a file of one kind on a node, and says how.
func damage(t *testing.T, n *node, kind, how string, rng *rand.Rand) (done string) {
	var names []string
	switch kind {
	case "sealed":
		names = files(t, n.fs, ".seg")
		names = names[:len(names)-1]
	case "tail":
		names = files(t, n.fs, ".seg")
		names = names[len(names)-1:]
	case "offsets":
		names = files(t, n.fs, ".off")
	case "checkpoint":
		names = files(t, n.fs, "checkpoint")
		names = names[max(len(names)-1, 0):]
	case "all checkpoints":
		names = files(t, n.fs, "checkpoint")
		for len(names) > 1 {
			ruin(t, n.fs, names[0], "truncate", rng)
			names = names[1:]
		}
	case "stable":
		names = files(t, n.fs, "stable")
	case "durable", "start":
		names = []string{"data/log/" + map[string]string{"durable": "durable-end", "start": "start"}[kind]}
		if _, err := n.fs.Stat(names[0]); err != nil {
			return ""
		}
	}
	if len(names) == 0 {
		return ""
	}
	i := rng.IntN(len(names))
	switch how {
	case "swap":
		if len(names) < 2 {
			return ""
		}
		j := (i + 1) % len(names)
		return exchange(t, n.fs, names[i], names[j])
	case "remove":
		require.NoError(t, n.fs.Remove(names[i]))
		dir := "data/log"
		if kind == "stable" {
			dir = "data"
		} else if kind == "checkpoint" || kind == "all checkpoints" {
			dir = "data/checkpoints"
		}
		require.NoError(t, n.fs.SyncDir(dir))
		return fmt.Sprintf("removed %s", names[i])
	}
	return ruin(t, n.fs, names[i], how, rng)
}

// provoke reads all of a node's entries, as a scrub would: what is damaged must
// show, and be said.
func (n *node) provoke() {
	log := n.r.Log()
	for i := log.First(); i <= log.Last(); i++ {
		_, err := log.Entry(i)
		var corrupt *commitlog.CorruptError
		require.True(n.c.t, err == nil || errors.As(err, &corrupt), "%s: entry %d: %v", n.id, i, err)
	}
	for off := log.Lowest(); off < log.Visible(); off++ {
		_, err := log.Read(off, 1)
		var corrupt *commitlog.CorruptError
		var outOf *commitlog.OutOfRangeError // the offsets are being made anew
		require.True(n.c.t, err == nil || errors.As(err, &corrupt) || errors.As(err, &outOf), "%s: offset %d: %v", n.id, off, err)
	}
}
