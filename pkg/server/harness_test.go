package server_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/internal/testutil"
	"github.com/logd-io/logd/pkg/replica"
	"github.com/logd-io/logd/pkg/server"
	"github.com/logd-io/logd/pkg/tlsconf"
	"github.com/logd-io/logd/pkg/tlsconf/tlstest"
)

func TestMain(m *testing.M) { testutil.VerifyMain(m) }

const (
	selfID  = "n1.00000001"
	otherID = "n2.00000002"
	cluster = "5f0c6a3e-3b7e-4d46-9f0c-2a4f5b1f7a10"
)

// pending is a batch the test settles.
type pending struct {
	batch replica.Batch
	done  chan struct{}
	res   replica.Result
	err   error
}

func (p *pending) Done() <-chan struct{}           { return p.done }
func (p *pending) Result() (replica.Result, error) { return p.res, p.err }

// node is a replica and its log in memory. Batches are appended at once unless
// held, and then when the test settles them.
type node struct {
	mu        sync.Mutex
	batches   []commitlog.RecordBatch
	next      uint64
	lowest    uint64
	grew      chan struct{}
	view      replica.View
	changed   chan struct{}
	held      bool
	submitted []*pending
	arrived   chan *pending // a held batch each; roomy enough for every test
	refuse    func(replica.Batch) error
	fresh     []replica.Peer
	keeps     error // what Transfer answers, set before there are calls; nil: it works
	added     []string
	removed   []string
	promises  [][]string
	grant     error
	extract   func(first, last uint64) (replica.Extract, error) // nil: no entries
	ckpt      replica.Checkpoint
	confirm   func(context.Context) (uint64, error) // what ReadIndex does, if set
	waits     atomic.Int64                          // in Wait now
}

func newNode() *node {
	return &node{
		grew: make(chan struct{}), changed: make(chan struct{}), arrived: make(chan *pending, 1024),
		view: replica.View{
			ClusterID: cluster, Term: 4, LeaderID: selfID, Ready: true, IsLeader: true, State: replica.StateLeader,
			Peers: []replica.Peer{{ID: selfID, Voter: true}, {ID: otherID, Voter: true}},
		},
	}
}

func (n *node) Submit(b replica.Batch) (server.Pending, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.refuse != nil {
		if err := n.refuse(b); err != nil {
			return nil, err
		}
	}
	p := &pending{batch: b, done: make(chan struct{})}
	n.submitted = append(n.submitted, p)
	if n.held {
		n.arrived <- p
		return p, nil
	}
	n.commitLocked(p)
	return p, nil
}

func (n *node) commitLocked(p *pending) {
	p.res = replica.Result{FirstOffset: n.next, Count: p.batch.Count}
	n.batches = append(n.batches, commitlog.RecordBatch{
		FirstOffset: n.next, Count: p.batch.Count, Timestamp: p.batch.Timestamp, Records: p.batch.Records,
	})
	n.next += uint64(p.batch.Count)
	close(n.grew)
	n.grew = make(chan struct{})
	close(p.done)
}

// settle commits a held batch, or ends it with err.
func (n *node) settle(p *pending, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil {
		p.err = err
		close(p.done)
		return
	}
	n.commitLocked(p)
}

// put appends records with those values, as one batch.
func (n *node) put(values ...string) {
	var recs []byte
	for _, v := range values {
		recs = protowire.AppendBytes(recs, record(v))
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.commitLocked(&pending{batch: replica.Batch{Count: uint32(len(values)), Records: recs}, done: make(chan struct{})})
}

// record is a stored record: value and timestamp.
func record(value string) []byte {
	b := protowire.AppendTag(nil, 1, protowire.BytesType)
	b = protowire.AppendString(b, value)
	b = protowire.AppendTag(b, 7, protowire.VarintType)
	return protowire.AppendVarint(b, 1)
}

func (n *node) set(change func(*replica.View)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	v := n.view
	change(&v)
	n.view = v
	close(n.changed)
	n.changed = make(chan struct{})
}

func (n *node) follow() {
	n.set(func(v *replica.View) { v.LeaderID, v.IsLeader, v.State = otherID, false, replica.StateFollower })
}

func (n *node) hold() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.held = true
}

func (n *node) refuseWith(f func(replica.Batch) error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.refuse = f
}

func (n *node) last() replica.Batch {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.submitted[len(n.submitted)-1].batch
}

func (n *node) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.submitted)
}

func (n *node) WaitPosition(ctx context.Context, pos uint64, bound time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	if v := n.View(); v.IsLeader && pos > n.Visible() {
		return &replica.PositionUnknownError{Visible: n.Visible()}
	}
	if pos > 0 && n.Wait(ctx, pos-1) != nil {
		return &replica.BehindError{Visible: n.Visible()}
	}
	return nil
}

func (n *node) View() replica.View {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.view
}

func (n *node) Changes() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.changed
}

func (n *node) Stats() replica.Stats {
	v := n.View()
	return replica.Stats{State: v.State, Term: v.Term, LeaderID: v.LeaderID, Visible: n.Visible(), LastContact: -1}
}

// Peers is what View shows, and what the test says View does not show yet.
func (n *node) Peers() []replica.Peer {
	v := n.View()
	n.mu.Lock()
	defer n.mu.Unlock()
	return append(v.Peers[:len(v.Peers):len(v.Peers)], n.fresh...)
}

func (n *node) AddNonvoter(_ context.Context, id string) error {
	n.mu.Lock()
	n.added = append(n.added, id)
	n.mu.Unlock()
	n.set(func(v *replica.View) {
		v.Peers = append(v.Peers[:len(v.Peers):len(v.Peers)], replica.Peer{ID: id})
	})
	return nil
}

func (n *node) RemovePeer(_ context.Context, id string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.removed = append(n.removed, id)
	return nil
}

func (n *node) Transfer(_ context.Context, target string) error {
	if n.keeps != nil {
		return n.keeps
	}
	n.set(func(v *replica.View) { v.LeaderID, v.IsLeader = otherID, false })
	return nil
}

func (n *node) Entries(first, last uint64, _ int) (replica.Extract, error) {
	n.mu.Lock()
	f := n.extract
	n.mu.Unlock()
	if f == nil {
		return replica.Extract{}, nil
	}
	return f(first, last)
}

func (n *node) NewestCheckpoint(max uint64) (replica.Checkpoint, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ckpt.Index > max {
		return replica.Checkpoint{}, nil
	}
	return n.ckpt, nil
}

func (n *node) Grant(_ context.Context, _, _ string, servers []string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.promises = append(n.promises, servers)
	return n.grant
}

func (n *node) Visible() uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.next
}

func (n *node) Lowest() uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lowest
}

func (n *node) waiting() int64 { return n.waits.Load() }

func (n *node) Wait(ctx context.Context, off uint64) error {
	n.waits.Add(1)
	defer n.waits.Add(-1)
	for {
		n.mu.Lock()
		next, grew := n.next, n.grew
		n.mu.Unlock()
		if off < next {
			return nil
		}
		select {
		case <-grew:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// ReadInto puts every batch into memory of the reader's, as a log that comes from
// the disk does.
func (n *node) ReadInto(off uint64, maxBytes int, room func(int) []byte) ([]commitlog.RecordBatch, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if off < n.lowest || off >= n.next {
		return nil, &commitlog.OutOfRangeError{Offset: off, Lowest: n.lowest, Next: n.next}
	}
	var got []commitlog.RecordBatch
	size := 0
	for _, b := range n.batches {
		if b.FirstOffset+uint64(b.Count) <= off {
			continue
		}
		if size += len(b.Records); len(got) > 0 && size > maxBytes {
			break
		}
		got = append(got, b)
	}
	buf := room(size)[:0]
	for i, b := range got {
		buf = append(buf, b.Records...)
		got[i].Records = buf[len(buf)-len(b.Records):]
	}
	return got, nil
}

func (n *node) OffsetAt(ns int64) uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, b := range n.batches {
		if b.Timestamp >= ns {
			return b.FirstOffset
		}
	}
	return n.next
}

// rig is a server on loopback.
type rig struct {
	*node
	t    *testing.T
	ca   *tlstest.CA
	srv  *server.Server
	addr string
	raft chan raftConn // dispatched connections; roomy enough for every test
	end  func()        // closes the server; once is enough
}

type raftConn struct {
	net.Conn
	name string
}

func start(t *testing.T, tweak ...func(*server.Config)) *rig {
	t.Helper()
	r := &rig{node: newNode(), t: t, ca: tlstest.NewCA(t, "test"), raft: make(chan raftConn, 16)}
	cfg := server.Config{
		NodeID: selfID, Version: "test", Replica: r.node, Log: r.node, Promises: r.node,
		TLS: r.ca.Source(t, tlsconf.RoleStorage, "n1"),
		Addresses: func(id string) string {
			return map[string]string{selfID: "one:1", otherID: "two:2"}[id]
		},
		RaftConn: func(c net.Conn, name string) { r.raft <- raftConn{c, name} },
	}
	for _, f := range tweak {
		f(&cfg)
	}
	srv, err := server.New(cfg)
	require.NoError(t, err)
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r.srv, r.addr = srv, lis.Addr().String()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(lis) }()
	r.end = sync.OnceFunc(func() {
		require.NoError(t, srv.Close())
		require.NoError(t, <-served)
	})
	t.Cleanup(r.end)
	return r
}

// dial connects as somebody.
func (r *rig) dial(role tlsconf.Role, name string, opts ...grpc.DialOption) *grpc.ClientConn {
	r.t.Helper()
	src := r.ca.Source(r.t, role, name)
	return r.dialTLS(src.Client(tlsconf.ALPNgRPC, tlsconf.RoleStorage, "n1"), opts...)
}

func (r *rig) dialTLS(conf *tls.Config, opts ...grpc.DialOption) *grpc.ClientConn {
	r.t.Helper()
	cc, err := grpc.NewClient("passthrough:///"+r.addr,
		append([]grpc.DialOption{grpc.WithTransportCredentials(credentials.NewTLS(conf))}, opts...)...)
	require.NoError(r.t, err)
	r.t.Cleanup(func() { _ = cc.Close() })
	return cc
}

func (r *rig) client() logv1.LogClient {
	return logv1.NewLogClient(r.dial(tlsconf.RoleClient, "app"))
}

func (r *rig) proxy() nodev1.NodeClient { return r.proxyFor("p1", "alice") }

// proxyFor is a proxy that speaks for principal in every call.
func (r *rig) proxyFor(name, principal string) nodev1.NodeClient {
	with := func(ctx context.Context) context.Context {
		return metadata.AppendToOutgoingContext(ctx, "logd-original-principal", principal)
	}
	return nodev1.NewNodeClient(r.dial(tlsconf.RoleProxy, name,
		grpc.WithUnaryInterceptor(func(ctx context.Context, m string, req, resp any, cc *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return next(with(ctx), m, req, resp, cc, opts...)
		}),
		grpc.WithStreamInterceptor(func(ctx context.Context, d *grpc.StreamDesc, cc *grpc.ClientConn, m string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			return next(with(ctx), d, cc, m, opts...)
		})))
}

// testBound is for what should not take a second.
const testBound = 20 * time.Second

func ctxOf(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), testBound)
	t.Cleanup(cancel)
	return ctx
}

// drainConn reads a connection to its end.
func drainConn(c net.Conn) ([]byte, error) {
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	return io.ReadAll(c)
}

// ReadIndex confirms the leadership of a node that leads, unless the test says else.
func (n *node) ReadIndex(ctx context.Context) (uint64, error) {
	n.mu.Lock()
	confirm := n.confirm
	n.mu.Unlock()
	if confirm != nil {
		return confirm(ctx)
	}
	if v := n.View(); !v.IsLeader {
		return 0, &replica.NotLeaderError{LeaderID: v.LeaderID, Term: v.Term}
	}
	return n.Visible(), nil
}

func (n *node) confirmWith(f func(context.Context) (uint64, error)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.confirm = f
}
