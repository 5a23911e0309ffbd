package bootstrap_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/bootstrap"
	"github.com/logd-io/logd/pkg/vfs"
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
	hidden map[[2]string]bool // who does not see whom
	began  map[string]string  // lists that were bootstrapped, or may have been, by uuid
	stops  []error            // what Runs stopped with by themselves
	told   chan struct{}      // gossip changed
}

// node is one data directory, and the process on it when there is one.
type node struct {
	w    *world
	id   string
	disk *memfs.FS
	life *life // nil: down
	wg   sync.WaitGroup
}

// life is one process of a node. Once dead is set nothing it does has effects.
type life struct {
	vfs.FS
	n      *node
	left   int // steps on disk until it dies; < 0: it does not. Guarded by w.mu
	dead   bool
	b      *bootstrap.Bootstrap
	cancel context.CancelFunc
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

// step counts one change on disk and says whether the process still makes it.
func (l *life) step() error {
	w := l.n.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if l.left == 0 && !w.calm {
		l.die()
	}
	if l.dead {
		return errDead
	}
	l.left--
	return nil
}

// die leaves what a kill or a power loss leaves. w.mu is held.
func (l *life) die() {
	if l.dead {
		return
	}
	l.dead = true
	l.n.life = nil
	l.cancel()
	if l.n.w.rng.IntN(2) == 0 {
		l.n.disk = l.n.disk.Kill()
	} else {
		l.n.disk = l.n.disk.Crash(l.n.w.rng.Uint64())
	}
}

func (l *life) alive() bool {
	l.n.w.mu.Lock()
	defer l.n.w.mu.Unlock()
	return !l.dead
}

func (l *life) Create(name string) (vfs.File, error) {
	if err := l.step(); err != nil {
		return nil, err
	}
	f, err := l.FS.Create(name)
	return &file{f, l}, err
}
func (l *life) Rename(from, to string) error {
	if err := l.step(); err != nil {
		return err
	}
	return l.FS.Rename(from, to)
}
func (l *life) Remove(name string) error {
	if err := l.step(); err != nil {
		return err
	}
	return l.FS.Remove(name)
}
func (l *life) SyncDir(dir string) error {
	if err := l.step(); err != nil {
		return err
	}
	return l.FS.SyncDir(dir)
}

type file struct {
	vfs.File
	l *life
}

func (f *file) WriteAt(b []byte, off int64) (int, error) {
	if err := f.l.step(); err != nil {
		return 0, err
	}
	return f.File.WriteAt(b, off)
}
func (f *file) Sync() error {
	if err := f.l.step(); err != nil {
		return err
	}
	return f.File.Sync()
}

// The replica: a bound uuid and a configuration, each durable.
func (l *life) read(name string) string {
	data, err := vfs.ReadFile(l.FS, path.Join(dir, name))
	if err != nil {
		return ""
	}
	return string(data)
}
func (l *life) write(name, data string) error {
	return vfs.WriteFileAtomic(l, path.Join(dir, name), []byte(data))
}
func (l *life) HasState() bool           { return l.read("state") != "" }
func (l *life) Bound() string            { return l.read("bound") }
func (l *life) Changes() <-chan struct{} { return l.n.w.changes() }

// Bind is more forgiving than the real one, so that promises alone have to hold.
func (l *life) Bind(uuid string) error {
	if l.Bound() == uuid {
		return nil
	}
	return l.write("bound", uuid)
}
func (l *life) Bootstrap(_ context.Context, uuid string, servers []string) error {
	if !l.alive() {
		return errDead
	}
	if l.HasState() {
		return errors.New("bootstrap on a node with state")
	}
	if err := l.Bind(uuid); err != nil {
		return err
	}
	l.n.w.mu.Lock()
	l.n.w.began[uuid] = fmt.Sprint(servers) // even if it now dies: the disk may have it
	l.n.w.mu.Unlock()
	state, err := json.Marshal(promise(uuid, servers...))
	if err != nil {
		return err
	}
	return l.write("state", string(state))
}

// The network. A request may be lost, and an answer, and either may be late.
func (l *life) Promise(ctx context.Context, id string, p bootstrap.Promise) error {
	w := l.n.w
	w.pause(ctx, 300*time.Millisecond)
	if !l.alive() || w.chance(0.3) {
		return errLost
	}
	w.mu.Lock()
	var peer *life
	for _, n := range w.nodes {
		if n.id == id {
			peer = n.life
		}
	}
	w.mu.Unlock()
	if peer == nil {
		return errLost
	}
	err := peer.b.Grant(ctx, p.Cluster, p.Initiator, p.Servers)
	w.pause(ctx, 300*time.Millisecond)
	if !peer.alive() || w.chance(0.3) {
		return errLost
	}
	if err != nil {
		return &bootstrap.RefusedError{Peer: id, Err: err}
	}
	return nil
}

// Gossip.
func (l *life) Peers() []bootstrap.Peer {
	w := l.n.w
	w.mu.Lock()
	defer w.mu.Unlock()
	var peers []bootstrap.Peer
	for _, n := range w.nodes {
		if n != l.n && n.life != nil && !w.hidden[[2]string{l.n.id, n.id}] {
			peers = append(peers, bootstrap.Peer{
				ID: n.id, Expect: w.expect, Alive: true, HasState: n.life.HasState(), Cluster: n.life.Bound(),
			})
		}
	}
	return peers
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
	l := &life{FS: n.disk, n: n, left: left, cancel: cancel}
	w.mu.Lock()
	n.life = l
	w.mu.Unlock()
	store, err := bootstrap.Open(l, dir)
	if err != nil {
		require.ErrorIs(w.t, err, errDead)
		return
	}
	b := bootstrap.New(bootstrap.Config{
		ID: n.id, Expect: w.expect, Store: store, Replica: l, Peers: gossip{l}, Asker: l,
	})
	w.mu.Lock()
	l.b = b
	w.mu.Unlock()
	n.wg.Go(func() {
		err := b.Run(ctx)
		w.mu.Lock()
		defer w.mu.Unlock()
		if err != nil && !l.dead && ctx.Err() == nil {
			w.stops = append(w.stops, fmt.Errorf("%s: %w", n.id, err))
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
			w.hidden[[2]string{n.id, other.id}] = !w.calm && w.rng.IntN(3) == 0
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
			if slices.Contains(p.Servers, to.n.id) && to.Bound() == p.Cluster && !w.chance(0.5) {
				_ = to.write("state", state) // it may die of it
			}
		}
	}
}

// simulate runs n nodes that expect so many, first in trouble and then in peace.
func simulate(t *testing.T, seed uint64, n, expect int) *world {
	ctx, cancel := context.WithCancel(t.Context())
	w := &world{
		t: t, expect: expect, ctx: ctx, rng: rand.New(rand.NewPCG(seed, 1)),
		hidden: map[[2]string]bool{}, began: map[string]string{}, told: make(chan struct{}),
	}
	for i := range n {
		disk := memfs.New()
		require.NoError(t, disk.MkdirAll(dir))
		w.nodes = append(w.nodes, &node{w: w, id: string(rune('a' + i)), disk: disk})
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
	return w
}

// seedCount is how many histories a test looks at: LOGD_SEEDS, or a few.
func seedCount() uint64 {
	if n, err := strconv.ParseUint(os.Getenv("LOGD_SEEDS"), 10, 64); err == nil {
		return n
	}
	return 25
}

// Whatever dies when, and whatever is lost, there is never more than one list
// under one uuid; and when all are up and hear each other, there is one.
func TestNeverTwoClusters(t *testing.T) {
	seeds := seedCount()
	for _, n := range []int{3, 5} {
		t.Run(fmt.Sprintf("%d nodes", n), func(t *testing.T) {
			for seed := range seeds {
				synctest.Test(t, func(t *testing.T) {
					w := simulate(t, seed, n, n)
					require.Len(t, w.began, 1, "seed %d", seed)
					require.Empty(t, w.stops, "seed %d", seed)
					states := map[string]bool{}
					for _, n := range w.nodes {
						data, err := vfs.ReadFile(n.disk, path.Join(dir, "state"))
						require.NoError(t, err, "seed %d: %s", seed, n.id)
						states[string(data)] = true
					}
					require.Len(t, states, 1, "seed %d", seed)
				})
			}
		})
	}
}

// With one node too many, nodes that see different ones mean different lists.
// They may all stop, but not bootstrap two.
func TestNeverTwoClustersWithOneTooMany(t *testing.T) {
	seeds := seedCount()
	var one, none int
	for _, n := range []int{4, 5} {
		for seed := range seeds {
			synctest.Test(t, func(t *testing.T) {
				w := simulate(t, seed, n, 3)
				require.LessOrEqual(t, len(w.began), 1, "seed %d: %v", seed, w.began)
				one += len(w.began)
				none += 1 - len(w.began)
			})
		}
	}
	require.Positive(t, one)
	t.Logf("one cluster %d times, none %d times", one, none)
}
