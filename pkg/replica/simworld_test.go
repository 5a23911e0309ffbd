package replica

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/raftstore"
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
	calm      atomic.Bool // nothing is made to fail any more

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

	// Guarded by world.mu.
	mem      *memfs.FS // while it is down
	node     *simNode  // nil while it is down
	away     time.Time // when it went down
	starting bool
}

// simNode is one life of a node.
type simNode struct {
	id      string
	host    *simHost
	r       *Replica
	disk    *simDisk
	alive   atomic.Bool // cleared, under the oracle's lock, when it dies
	faulty  atomic.Bool // its disk was made to fail: it may stop
	leaving atomic.Bool // it may find itself removed
	cancel  context.CancelFunc
	ended   chan struct{}
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

// probe connects a life of a node with the oracle.
func (h *simHost) probe(n *simNode) *probe {
	o := h.w.o
	return &probe{
		bugs:          h.w.opt.bugs,
		commitTimeout: h.w.commit,
		stores: func(s *raftstore.Store) (raft.LogStore, raft.StableStore) {
			p := &simStore{Store: s, n: n, o: o}
			if n.alive.Load() {
				o.opened(n.id, s.Log(), p.get)
			}
			return p, p
		},
		snapshots: func(s *raftstore.Snapshots) raft.SnapshotStore {
			if h.oldConfig {
				return oldConfigs{s}
			}
			return s
		},
		started: func(r *raft.Raft) { o.configured(n, r) },
		state:   func(r *raft.Raft, s raft.RaftState) { o.became(n, s, r.CurrentTerm()) },
		sends:   func(req *raft.AppendEntriesRequest) { o.sends(n, req) },
		made: func(m *machine, visible uint64) {
			m.producers.max, m.keys.max = o.model.maxProd, o.model.maxKeys
			o.made(n, m, visible)
		},
		applied: func(l *raft.Log, m *machine, outcomes []outcome, pub []commitlog.Applied) {
			o.applies(n, l, m, outcomes, pub)
		},
	}
}

// configured compares the configuration Raft starts with and the newest one in
// the log or, with none there, committed below it.
func (o *oracle) configured(n *simNode, r *raft.Raft) {
	f := r.GetConfiguration()
	if f.Error() != nil {
		return
	}
	got := f.Configuration()
	o.mu.Lock()
	defer o.mu.Unlock()
	if !n.alive.Load() {
		return
	}
	s := o.shadow(n.id)
	var at place
	want, ok := "", false
	for i := s.last().index; i > s.start.index && !ok; i-- {
		at, _ = s.at(i)
		want, ok = o.configs[at]
	}
	for i := min(s.start.index, uint64(len(o.chosen)-1)); i > 0 && !ok; i-- {
		at = place{i, o.chosen[i]}
		want, ok = o.configs[at]
	}
	if servers := fmt.Sprint(got.Servers); ok && servers != want {
		o.violated("configuration", "%s starts with %s, but entry %d, the newest it has, says %s", n.id, servers, at.index, want)
	}
}

// simStore is what Raft stores through.
type simStore struct {
	*raftstore.Store
	n *simNode
	o *oracle
}

func (s *simStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

func (s *simStore) StoreLogs(logs []*raft.Log) error {
	s.n.disk.wait()
	s.o.storing(s.n, logs)
	err := s.Store.StoreLogs(logs)
	if err == nil {
		s.o.storedAll(s.n)
		if s.n.host.shows {
			s.show(logs)
		}
		s.n.disk.wait()
	}
	return err
}

// show is a planted bug: records can be read when they are stored.
func (s *simStore) show(logs []*raft.Log) {
	for _, l := range logs {
		if l.Type != raft.LogCommand || l.Data[0] != kindData {
			continue
		}
		next := s.Log().Visible()
		_ = decodeData(l.Data, func(h *header) {
			_ = s.Log().Publish([]commitlog.Applied{{FirstOffset: next, Count: h.count, Index: l.Index, Pos: h.pos, Len: h.len}})
			next += uint64(h.count)
		})
	}
}

func (s *simStore) DeleteRange(first, last uint64) error {
	s.n.disk.wait()
	s.o.cutting(s.n, first)
	err := s.Store.DeleteRange(first, last)
	if err == nil {
		s.o.cut(s.n, first)
	}
	return err
}

func (s *simStore) get(key string) string {
	if s.Log() == nil {
		return ""
	}
	b, err := s.Store.Get([]byte(key))
	if err != nil {
		return ""
	}
	return string(b)
}

func (s *simStore) Set(key, val []byte) error {
	s.n.disk.wait()
	s.o.setting(s.n, string(key), string(val))
	vote := string(key) != "CurrentTerm"
	if h := s.n.host; !(h.forgetVote && vote || h.oldTerm && !vote) {
		if err := s.Store.Set(key, val); err != nil {
			return err
		}
	}
	s.o.set(s.n, string(key), string(val))
	return nil
}

func (s *simStore) SetUint64(key []byte, val uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, val))
}

// oldConfigs is a planted bug: a checkpoint loses the newest member.
type oldConfigs struct{ *raftstore.Snapshots }

func (s oldConfigs) List() ([]*raft.SnapshotMeta, error) {
	metas, err := s.Snapshots.List()
	for _, m := range metas {
		if n := len(m.Configuration.Servers); n > 1 {
			m.Configuration.Servers = m.Configuration.Servers[:n-1]
		}
	}
	return metas, err
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
