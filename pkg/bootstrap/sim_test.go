package bootstrap_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/bootstrap"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

var (
	errDead = errors.New("the process is gone")
	errLost = errors.New("lost on the way")
)

// world is nodes that start in any order, die after any step on disk (killed, or
// by power loss), ask each other over a network that loses requests and answers,
// and see each other as gossip lets them.
type world struct {
	t      *testing.T
	expect int
	ctx    context.Context

	mu     sync.Mutex
	rng    *rand.Rand
	calm   bool // no more faults
	nodes  []*node
	hidden map[[2]string]bool  // who does not see whom
	began  map[string][]string // lists that were bootstrapped, or may have been, by uuid
	broken []string            // what may never be, and was
	losses bool                // nodes are wiped, and promises forgotten, while there is trouble
	bug    bug                 // planted
	late   sync.WaitGroup      // requests that are still on their way
	stops  []error             // what Runs stopped with by themselves
	told   chan struct{}       // gossip changed
}

// bug is a fault that the simulation has to notice.
type bug int

const (
	noBug         bug = iota
	losesPromise      // a crash takes the promise along
	believes          // who asks takes no answer for a promise
	forgetKeepsID     // a node that has forgotten its promise has the id it promised under
	wipeKeepsID       // a node that has lost all it had has its old id
)

// node is one data directory, and the process on it when there is one.
type node struct {
	w    *world
	name string
	id   string // another one for every disk; guarded by w.mu once the world runs
	gen  int
	disk *memfs.FS
	life *life // nil: down
	wg   sync.WaitGroup
}

func (w *world) chance(p float64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.calm && w.rng.Float64() < p
}

func (w *world) pause(ctx context.Context, most time.Duration) {
	w.mu.Lock()
	d := time.Duration(w.rng.Int64N(int64(most)))
	w.mu.Unlock()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// lose takes from a node that is down all it has, or its promise. w.mu is held.
func (n *node) lose(everything bool) {
	keeps := wipeKeepsID
	if everything {
		n.disk = memfs.New()
		if err := n.disk.MkdirAll(dir); err != nil {
			n.w.broken = append(n.w.broken, err.Error())
		}
	} else {
		keeps = forgetKeepsID
		if _, err := n.disk.Stat(path.Join(dir, "state")); err == nil {
			return
		}
		_ = n.disk.Remove(path.Join(dir, "promise"))
		_ = n.disk.Remove(path.Join(dir, "bound"))
		if err := n.disk.SyncDir(dir); err != nil {
			n.w.broken = append(n.w.broken, err.Error())
		}
	}
	if n.w.bug != keeps {
		n.gen++
		n.id = fmt.Sprint(n.name, n.gen)
	}
}

// begin checks what may never be: two clusters that share a server. One that is begun
// again, after a crash, is the same one. w.mu is held.
func (w *world) begin(id, uuid string, servers []string) {
	for other, list := range w.began {
		if other == uuid && slices.Equal(list, servers) {
			continue
		}
		for _, s := range list {
			if other == uuid || slices.Contains(servers, s) {
				w.broken = append(w.broken, fmt.Sprintf("%s begins %s of %v, and %s of %v has begun", id, uuid, servers, other, list))
				break
			}
		}
	}
	if !slices.Contains(servers, id) {
		w.broken = append(w.broken, fmt.Sprintf("%s begins a cluster of %v", id, servers))
	}
	w.began[uuid] = slices.Clone(servers)
}

// reach is the process that has that id now, nil for none.
func (w *world) reach(id string) *life {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.nodes {
		if n.life != nil && n.life.id == id && n.life.b != nil {
			return n.life
		}
	}
	return nil
}

// again delivers a request once more, or for the first time, much later, when who
// asked may have given up, died, or become another.
func (w *world) again(id string, p bootstrap.Promise) {
	if !w.chance(0.2) {
		return
	}
	w.late.Go(func() {
		w.pause(w.ctx, 10*time.Second)
		if peer := w.reach(id); peer != nil {
			_ = peer.b.Grant(w.ctx, p.Cluster, p.Initiator, p.Servers)
		}
	})
}

type gossip struct{ *life }

func (g gossip) Changes() <-chan struct{} { return g.n.w.changes() }

func (w *world) changes() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.told
}

// start begins a process of n, one that dies after left steps.
func (n *node) start(left int) {
	w := n.w
	ctx, cancel := context.WithCancel(w.ctx)
	w.mu.Lock()
	l := &life{FS: n.disk, n: n, id: n.id, left: left, cancel: cancel}
	n.life = l
	w.mu.Unlock()
	store, err := bootstrap.Open(l, dir)
	if err != nil {
		require.ErrorIs(w.t, err, errDead)
		return
	}
	b := bootstrap.New(bootstrap.Config{
		ID: l.id, Expect: w.expect, Store: store, Replica: l, Peers: gossip{l}, Asker: l,
	})
	w.mu.Lock()
	l.b = b
	w.mu.Unlock()
	n.wg.Go(func() {
		err := b.Run(ctx)
		w.mu.Lock()
		defer w.mu.Unlock()
		if err != nil && !l.dead && ctx.Err() == nil {
			w.stops = append(w.stops, fmt.Errorf("%s: %w", l.id, err))
		}
	})
}

// tick is everything else that happens: gossip, replication, starts, deaths.
func (w *world) tick() {
	w.mu.Lock()
	var leaders, followers []*life
	var starts []*node
	for _, n := range w.nodes {
		switch {
		case n.life == nil && w.losses && !w.calm && w.rng.IntN(30) == 0:
			n.lose(w.rng.IntN(2) == 0)
		case n.life == nil && (w.calm || w.rng.IntN(8) == 0):
			starts = append(starts, n)
		case n.life != nil && !w.calm && w.rng.IntN(40) == 0:
			n.life.die()
		case n.life != nil && n.life.b != nil:
			if n.life.HasState() {
				leaders = append(leaders, n.life)
			} else {
				followers = append(followers, n.life)
			}
		}
		for _, other := range w.nodes {
			w.hidden[[2]string{n.name, other.name}] = !w.calm && w.rng.IntN(3) == 0
		}
	}
	close(w.told)
	w.told = make(chan struct{})
	var lives []int
	for range starts {
		lives = append(lives, w.rng.IntN(30))
	}
	w.mu.Unlock()
	for i, n := range starts {
		n.start(lives[i])
	}
	for _, from := range leaders {
		var p bootstrap.Promise
		state := from.read("state")
		require.NoError(w.t, json.Unmarshal([]byte(state), &p))
		for _, to := range followers {
			if slices.Contains(p.Servers, to.id) && to.Bound() == p.Cluster && !w.chance(0.5) {
				_ = to.write("state", state) // it may die of it
			}
		}
	}
}

// simulate runs n nodes that expect so many, first in trouble and then in peace.
func simulate(t *testing.T, seed uint64, n, expect int, edit ...func(*world)) *world {
	ctx, cancel := context.WithCancel(t.Context())
	w := &world{
		t: t, expect: expect, ctx: ctx, rng: rand.New(rand.NewPCG(seed, 1)),
		hidden: map[[2]string]bool{}, began: map[string][]string{}, told: make(chan struct{}),
	}
	for _, e := range edit {
		e(w)
	}
	for i := range n {
		disk := memfs.New()
		require.NoError(t, disk.MkdirAll(dir))
		w.nodes = append(w.nodes, &node{w: w, name: string(rune('a' + i)), id: string(rune('a'+i)) + "0", disk: disk})
	}
	for i := range 600 {
		if i == 300 {
			w.mu.Lock()
			w.calm = true
			w.mu.Unlock()
		}
		w.tick()
		w.pause(ctx, 200*time.Millisecond)
	}
	cancel()
	for _, n := range w.nodes {
		n.wg.Wait()
	}
	w.late.Wait()
	return w
}
