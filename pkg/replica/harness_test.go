package replica_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/replica"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

const testCluster = "0f0e0d0c-0b0a-4908-8706-050403020100"

// testPatience bounds a wait for something that has to happen; no test expects
// it to run out.
const testPatience = 60 * time.Second

// cluster is some replicas over in-memory connections and filesystems.
type cluster struct {
	t    testing.TB
	conf func(*replica.Config)
	off  []replica.Switch
	wrap func(from, to string, conn net.Conn) net.Conn // what a dialer gets, if set

	mu    sync.Mutex
	nodes map[string]*node         // guarded by mu
	cut   map[[2]string]bool       // pairs that cannot connect; guarded by mu
	live  map[[2]string][]net.Conn // by {from, to}; guarded by mu
}

// node is a replica that can be killed and started again.
type node struct {
	c      *cluster
	id     string
	fs     *memfs.FS
	r      *replica.Replica // nil while it is down; guarded by cluster.mu
	cancel context.CancelFunc
	ended  chan error
}

func nodeID(i int) string { return fmt.Sprintf("n%d.%08x", i, i) }

func newCluster(t testing.TB, conf func(*replica.Config), off ...replica.Switch) *cluster {
	c := &cluster{t: t, conf: conf, off: off, nodes: map[string]*node{}, cut: map[[2]string]bool{}, live: map[[2]string][]net.Conn{}}
	t.Cleanup(c.close)
	return c
}

// boot makes n nodes of one cluster and starts them.
func boot(t testing.TB, n int, conf func(*replica.Config), off ...replica.Switch) *cluster {
	c := newCluster(t, conf, off...)
	var ids []string
	for i := range n {
		ids = append(ids, nodeID(i+1))
	}
	for _, id := range ids {
		c.add(id).start()
	}
	require.NoError(t, c.node(ids[0]).r.Bootstrap(context.Background(), testCluster, ids))
	for _, id := range ids[1:] {
		require.NoError(t, c.node(id).r.Bind(testCluster))
	}
	return c
}

func (c *cluster) add(id string) *node {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := &node{c: c, id: id, fs: memfs.New()}
	c.nodes[id] = n
	return n
}

func (c *cluster) node(id string) *node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nodes[id]
}

// dial connects from one node to another, as TLS would.
func (c *cluster) dial(from, to string) (net.Conn, error) {
	c.mu.Lock()
	n := c.nodes[to]
	cut := c.cut[[2]string{from, to}] || c.cut[[2]string{to, from}]
	var r *replica.Replica
	if n != nil {
		r = n.r
	}
	c.mu.Unlock()
	if r == nil || cut {
		return nil, errors.New("connection refused")
	}
	near, far := net.Pipe()
	c.mu.Lock()
	c.live[[2]string{from, to}] = append(c.live[[2]string{from, to}], near)
	c.mu.Unlock()
	r.Accept(far, replica.NameOf(from))
	if c.wrap != nil {
		return c.wrap(from, to, near), nil
	}
	return near, nil
}

// compare carries CompareHash from one node to another.
func (c *cluster) compare(from, to string, index, digest uint64) (bool, uint64, error) {
	c.mu.Lock()
	var r *replica.Replica
	if n := c.nodes[to]; n != nil && !c.cut[[2]string{from, to}] && !c.cut[[2]string{to, from}] {
		r = n.r
	}
	c.mu.Unlock()
	if r == nil {
		return false, 0, errors.New("connection refused")
	}
	return r.CompareHash(replica.NameOf(from), index, digest)
}

func (n *node) open() *replica.Replica {
	cfg := replica.Config{
		ID: n.id, FS: n.fs, Dir: "data", SegmentBytes: 1 << 20,
		Heartbeat: time.Second,
		Dial: func(_ context.Context, id string) (net.Conn, error) {
			return n.c.dial(n.id, id)
		},
		Source: peers{c: n.c, id: n.id},
	}
	cfg.Compare = func(_ context.Context, id string, index, digest uint64) (bool, uint64, error) {
		return n.c.compare(n.id, id, index, digest)
	}
	if testing.Verbose() {
		cfg.Logger = hclog.New(&hclog.LoggerOptions{Name: n.id, Level: hclog.Info, Output: testOutput{n.c.t}})
	}
	if n.c.conf != nil {
		n.c.conf(&cfg)
	}
	r, err := replica.Open(cfg)
	require.NoError(n.c.t, err)
	r.Without(n.c.off...)
	return r
}

func (n *node) start() {
	r := n.open()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	n.c.mu.Lock()
	n.r, n.cancel, n.ended = r, cancel, ended
	n.c.mu.Unlock()
}

// stop ends the replica as a kill does, whatever Run says.
func (n *node) stop() error {
	n.c.mu.Lock()
	r := n.r
	n.r = nil
	n.c.mu.Unlock()
	if r == nil {
		return nil
	}
	n.cancel()
	err := <-n.ended
	require.NoError(n.c.t, r.Close())
	return err
}

// lose is stop with a power loss.
func (n *node) lose(seed uint64) {
	crashed := n.fs.Crash(seed) // at a moment of its running
	_ = n.stop()
	n.fs = crashed
}

func (c *cluster) close() {
	c.mu.Lock()
	var all []*node
	for _, n := range c.nodes {
		all = append(all, n)
	}
	c.mu.Unlock()
	for _, n := range all {
		_ = n.stop()
	}
}

// up gives the nodes that run.
func (c *cluster) up() []*node {
	c.mu.Lock()
	defer c.mu.Unlock()
	var up []*node
	for _, n := range c.nodes {
		if n.r != nil {
			up = append(up, n)
		}
	}
	return up
}

// leader waits until one of the running nodes leads.
func (c *cluster) leader() *node {
	ctx, cancel := context.WithTimeout(context.Background(), testPatience)
	defer cancel()
	for {
		var waits []<-chan struct{}
		up := c.up()
		for _, n := range up {
			waits = append(waits, n.r.Changes())
			if v := n.r.View(); v.IsLeader {
				return n
			}
		}
		require.NoError(c.t, waitAny(ctx, waits), "no leader")
	}
}

// waitAny waits until one of the channels is closed.
func waitAny(ctx context.Context, chans []<-chan struct{}) error {
	ctx, cancel := context.WithCancel(ctx)
	any, found := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for _, ch := range chans {
		wg.Add(1)
		go func() {
			defer wg.Done()
			select {
			case <-ch:
				found()
			case <-any.Done():
			}
		}()
	}
	<-any.Done()
	err := ctx.Err()
	cancel()
	found()
	wg.Wait()
	return err
}

// await waits until a node's View satisfies ok.
func (n *node) await(what string, ok func(replica.View) bool) {
	n.c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testPatience)
	defer cancel()
	for {
		ch := n.r.Changes()
		if ok(n.r.View()) {
			return
		}
		require.NoError(n.c.t, waitAny(ctx, []<-chan struct{}{ch}), what)
	}
}

// visible waits until n shows every record below off.
func (n *node) visible(off uint64) {
	n.c.t.Helper()
	if off == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), testPatience)
	defer cancel()
	require.NoError(n.c.t, n.r.Log().Wait(ctx, off-1), "%s shows %d of %d", n.id, n.r.Log().Visible(), off)
}

// framed frames messages as producers do.
func framed(msgs ...string) []byte {
	var b []byte
	for _, m := range msgs {
		b = append(binary.AppendUvarint(b, uint64(len(m))), m...)
	}
	return b
}

// produce appends messages through whoever leads, again and again with the same
// sequence until the outcome is known.
func (c *cluster) produce(p [16]byte, seq uint64, msgs ...string) replica.Result {
	c.t.Helper()
	b := replica.Batch{Producer: p, Owner: 1, FirstSeq: seq, Count: uint32(len(msgs)), Records: framed(msgs...), Timestamp: 1}
	ctx, cancel := context.WithTimeout(context.Background(), testPatience)
	defer cancel()
	for {
		l := c.leader()
		pending, err := l.r.Submit(b)
		if err == nil {
			var res replica.Result
			if res, err = pending.Wait(ctx); err == nil {
				return res
			}
		}
		var notLeader *replica.NotLeaderError
		if !errors.As(err, &notLeader) && !errors.Is(err, replica.ErrOutcomeUnknown) && !errors.Is(err, replica.ErrDraining) {
			require.NoError(c.t, err)
		}
	}
}

// read gives every record of a node from its lowest offset on.
func (n *node) read() (lowest uint64, msgs []string) {
	log := n.r.Log()
	lowest = log.Lowest()
	for off := lowest; off < log.Visible(); {
		batches, err := log.Read(off, 1<<20)
		require.NoError(n.c.t, err)
		for _, b := range batches {
			got := split(n.c.t, b)
			if b.FirstOffset < off {
				got = got[off-b.FirstOffset:]
			}
			msgs = append(msgs, got...)
			off = b.FirstOffset + uint64(b.Count)
		}
	}
	return lowest, msgs
}

func split(t testing.TB, b commitlog.RecordBatch) (msgs []string) {
	rest := b.Records
	for range b.Count {
		n, w := binary.Uvarint(rest)
		require.Positive(t, w)
		msgs = append(msgs, string(rest[w:w+int(n)]))
		rest = rest[w+int(n):]
	}
	require.Empty(t, rest)
	return msgs
}

type testOutput struct{ t testing.TB }

func (o testOutput) Write(b []byte) (int, error) {
	o.t.Log(string(b[:len(b)-1]))
	return len(b), nil
}

// eventually waits for something that has no event of its own.
func (c *cluster) eventually(ok func() bool, msg string, args ...any) {
	c.t.Helper()
	require.Eventually(c.t, ok, testPatience, 2*time.Millisecond, append([]any{msg}, args...)...)
}

// equal waits until all running nodes have applied the same, and checks that
// this left them equal.
func (c *cluster) equal() {
	c.t.Helper()
	c.eventually(func() bool {
		want := c.leader().r.Stats()
		for _, n := range c.up() {
			s := n.r.Stats()
			if s.AppliedIndex != want.AppliedIndex {
				return false
			}
			if s.Hash != want.Hash || s.Visible != want.Visible || s.Lowest != want.Lowest {
				return false
			}
		}
		return true
	}, "state machines become equal")
}

// partition cuts a node off from the others: connections die, and new ones are
// refused.
func (c *cluster) partition(n *node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range c.nodes {
		if id != n.id {
			c.cut[[2]string{n.id, id}] = true
		}
	}
	for pair, conns := range c.live {
		if c.cut[pair] || c.cut[[2]string{pair[1], pair[0]}] {
			for _, conn := range conns {
				_ = conn.Close()
			}
			delete(c.live, pair)
		}
	}
}

func (c *cluster) heal() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.cut)
}
