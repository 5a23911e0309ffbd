package replica

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/logd-io/logd/pkg/vfs/memfs"
)

const simCluster = "5f0e0d0c-0b0a-4908-8706-050403020100"

// simOptions say what a simulation is like.
type simOptions struct {
	seed   uint64
	length time.Duration // of trouble, in virtual time
	bugs   bugs
	rules  func(*rules)
	apart  func(*simHost) // bugs outside the replica, of one node
	log    hclog.Logger
}

// world is one simulated cluster. Everything in it runs in one bubble of
// testing/synctest.
type world struct {
	opt    simOptions
	o      *oracle
	net    *simNet
	rng    *rand.Rand // of whoever makes the world
	stop   chan struct{}
	wg     sync.WaitGroup // clients, nemeses, administrators
	reaped sync.WaitGroup // incarnations that died

	heartbeat time.Duration
	commit    time.Duration

	mu    sync.Mutex
	hosts map[string]*simHost // by id; those that are away too; guarded by mu
	ids   []string            // rising in age; guarded by mu
}

// simHost is a node's machine: what stays when the node dies.
type simHost struct {
	w    *world
	id   string
	born time.Time
	rng  *rand.Rand
	skew time.Duration // of its clock

	segment, cache      int64
	checkpoint          uint64
	slow                time.Duration
	lies                bool // planted: syncs of segments do nothing
	forgetVote, oldTerm bool // planted: not persisted
	shows               bool // planted: shows what is stored
	oldConfig           bool // planted: restores without the newest member

	leaving atomic.Bool // it may find itself removed, in this life or a later one

	// Guarded by world.mu.
	mem      *memfs.FS // while it is down
	node     *simNode  // nil while it is down
	away     time.Time // when it went down
	starting bool
}

// simNode is one life of a node.
type simNode struct {
	id     string
	host   *simHost
	r      *Replica
	disk   *simDisk
	alive  atomic.Bool // cleared, under the oracle's lock, when it dies
	faulty atomic.Bool // its disk was made to fail: it may stop
	cancel context.CancelFunc
	ended  chan struct{}
}

func newWorld(opt simOptions) *world {
	rng := rand.New(rand.NewPCG(opt.seed, 0))
	w := &world{opt: opt, rng: rng, stop: make(chan struct{}), hosts: map[string]*simHost{}}
	w.o = newOracle(newSimModel(5+rng.IntN(8), 16+rng.IntN(64)))
	w.net = newSimNet(rand.New(rand.NewPCG(opt.seed, 1)))
	w.heartbeat = []time.Duration{300, 300, 500, 1000}[rng.IntN(4)] * time.Millisecond
	w.commit = []time.Duration{5, 50, 50, 100}[rng.IntN(4)] * time.Millisecond
	return w
}

func simID(name int, life uint64) string { return fmt.Sprintf("n%d.%08x", name, life) }

// add makes a machine with an empty disk.
func (w *world) add(id string) *simHost {
	w.mu.Lock()
	defer w.mu.Unlock()
	rng := rand.New(rand.NewPCG(w.opt.seed, uint64(100+len(w.ids))))
	h := &simHost{
		w: w, id: id, born: time.Now(), rng: rng, mem: memfs.New(),
		segment: 1024 << rng.IntN(4), cache: 512 << rng.IntN(6), checkpoint: 6 << rng.IntN(5),
		slow: time.Duration(100+rng.IntN(2000)) * time.Microsecond,
		skew: time.Duration(rng.IntN(7200)-3600) * time.Second,
	}
	if w.opt.apart != nil {
		w.opt.apart(h)
	}
	w.hosts[id] = h
	w.ids = append(w.ids, id)
	return h
}

// all gives the machines in the order in which they came.
func (w *world) all() (hosts []*simHost) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range w.ids {
		hosts = append(hosts, w.hosts[id])
	}
	return hosts
}

// up gives the nodes that run.
func (w *world) up() (nodes []*simNode) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range w.ids {
		if n := w.hosts[id].node; n != nil {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

func (w *world) running(h *simHost) *simNode {
	w.mu.Lock()
	defer w.mu.Unlock()
	return h.node
}

// start begins a life of a node on what its disk holds.
func (h *simHost) start() {
	w := h.w
	if w.running(h) != nil || w.o.failed() {
		return
	}
	n := &simNode{id: h.id, host: h, ended: make(chan struct{})}
	w.mu.Lock()
	mem, busy := h.mem, h.starting || h.node != nil
	h.starting = h.starting || !busy
	n.disk = newSimDisk(mem, rand.New(rand.NewPCG(h.rng.Uint64(), 3)), h.slow, h.lies)
	w.mu.Unlock()
	if busy { // somebody else is at it
		return
	}
	defer func() {
		w.mu.Lock()
		h.starting = false
		w.mu.Unlock()
	}()
	r, err := Open(Config{
		ID: h.id, FS: n.disk.fs, Dir: "data", SegmentBytes: h.segment, CacheBytes: h.cache,
		Heartbeat: w.heartbeat, CheckpointEntries: h.checkpoint, Logger: w.opt.log, Announce: 3 * time.Second,
		Dial: func(ctx context.Context, id string) (net.Conn, error) { return w.net.dial(ctx, n, id) },
	})
	if err != nil {
		w.o.violate("opens", "%s: %v", h.id, err)
		return
	}
	if w.opt.rules != nil {
		w.opt.rules(&r.rules)
	}
	n.r, r.probe = r, h.probe(n)
	n.alive.Store(true)
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	w.mu.Lock()
	h.node = n
	w.mu.Unlock()
	w.net.mu.Lock()
	w.net.accept[h.id] = n
	w.net.mu.Unlock()
	w.reaped.Add(1)
	go func() {
		defer w.reaped.Done()
		err := r.Run(ctx)
		w.o.ended(n, err)
		close(n.ended)
		h.die(n, n.disk.mem.Kill) // if it was not killed: a process that ended
		_ = r.Close()             // on a disk that is gone
	}()
}

// die ends a life, if it has not ended. What the disk then holds is left's.
func (h *simHost) die(n *simNode, left func() *memfs.FS) bool {
	w := h.w
	w.o.mu.Lock()
	first := n.alive.CompareAndSwap(true, false)
	w.o.mu.Unlock()
	if !first {
		return false
	}
	mem := left()
	n.disk.die()
	w.net.drop(n)
	n.cancel()
	w.mu.Lock()
	h.mem, h.node, h.away = mem, nil, time.Now()
	w.mu.Unlock()
	return true
}

// kill is kill -9: the page cache stays.
func (h *simHost) kill() {
	if n := h.w.running(h); n != nil && h.die(n, n.disk.mem.Kill) {
		h.w.o.say(h.id, "is killed")
		h.w.o.count(func(c *counts) { c.Kills++ })
	}
}

// lose takes the power away.
func (h *simHost) lose(seed uint64) {
	if n := h.w.running(h); n != nil && h.die(n, func() *memfs.FS { return n.disk.mem.Crash(seed) }) {
		h.w.o.say(h.id, "loses power")
		h.w.o.count(func(c *counts) { c.Crashes++ })
	}
}

func (o *oracle) count(f func(*counts)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f(&o.counts)
}

// leader gives a node that takes itself for the leader, nil if there is none.
func (w *world) leader() *simNode {
	for _, n := range w.up() {
		if n.alive.Load() && n.r.View().State == StateLeader {
			return n
		}
	}
	return nil
}

// members gives the newest committed configuration.
func (w *world) members() (voters, others []string) {
	w.o.mu.Lock()
	defer w.o.mu.Unlock()
	for _, s := range w.o.config.Servers {
		if s.Suffrage == raft.Voter {
			voters = append(voters, string(s.ID))
		} else {
			others = append(others, string(s.ID))
		}
	}
	return voters, others
}

// pause waits, and reports false when everything is to stop.
func (w *world) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-w.stop:
	case <-w.o.stop:
	}
	return false
}

// boot makes a cluster of n nodes.
func (w *world) boot(n int) {
	var ids []string
	for i := range n {
		ids = append(ids, simID(i+1, 1))
	}
	for _, id := range ids {
		w.add(id).start()
	}
	for i, h := range w.all() {
		node := w.running(h)
		if node == nil {
			return
		}
		var err error
		if i == 0 {
			err = node.r.Bootstrap(context.Background(), simCluster, ids)
		} else {
			err = node.r.Bind(simCluster)
		}
		if err != nil {
			w.o.violate("opens", "%s: %v", h.id, err)
		}
	}
	w.o.mu.Lock()
	for _, id := range ids {
		w.o.config.Servers = append(w.o.config.Servers, raft.Server{ID: raft.ServerID(id)})
	}
	w.o.mu.Unlock()
}

// result is what a simulation comes to.
type simResult struct {
	found   *violation
	tail    string
	virtual time.Duration
	counts  counts
}

// simulate runs one seed: trouble for a while, then none, and everything has to
// come together.
func simulate(t *testing.T, opt simOptions) (res simResult) {
	run(t, func() {
		if opt.log == nil {
			opt.log = hclog.NewNullLogger()
		}
		begin := time.Now()
		w := newWorld(opt)
		w.boot(3)
		w.play()
		close(w.stop)
		w.wg.Wait()
		w.settle()
		for _, h := range w.all() {
			if n := w.running(h); n != nil {
				h.die(n, n.disk.mem.Kill)
			}
		}
		w.reaped.Wait()
		time.Sleep(30 * time.Second) // Raft's goroutines that stopped by themselves
		res.virtual = time.Since(begin)
		res.counts, res.found = w.o.counts, w.o.found
		res.counts.Ghosts = w.net.counts.ghosts
		if res.found != nil {
			res.tail = w.o.tail(400)
		}
	})
	return res
}
