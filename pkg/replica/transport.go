package replica

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

const (
	// rpcTimeout bounds one RPC's I/O.
	rpcTimeout = 2 * time.Second
	// maxPool is how many idle connections to a peer are kept: heartbeat,
	// replication, votes.
	maxPool = 3
	// maxAppendBytes is where an outgoing AppendEntries is cut.
	maxAppendBytes = 4 << 20
	// entryOverhead is what an entry takes on the wire besides its data, roughly.
	entryOverhead = 128
	// maxPeers bounds the peers one node talks to, and those it has inbound
	// connections of at a time.
	maxPeers = 64
)

// rules are the hardening rules of the safe transport. Tests switch one off to
// show what it is for; everything else uses allRules.
type rules struct {
	clamp      bool // a follower commits only what the RPC verified (I6)
	raise      bool // AppendEntries below our start begin at the start (I8)
	shorten    bool // outgoing AppendEntries are cut by bytes (I9)
	install    bool // we install checkpoints, with Raft stopped (I7)
	heartbeats bool // heartbeats take the main loop (I5)
	persist    bool // replication waits for a peer that cannot be reached (I15)
	reserve    bool // a node almost out of disk takes no records
	refused    bool // one that takes no records gets everything before them
	prove      bool // a peer's entries replace ours only when they are proved
	shy        bool // a damaged node delays its own candidacy
	single     bool // one AppendEntries to a peer is under way, never more (I9)
	preface    bool // a connection is for this node, of this cluster, and who it says it is (I11)
	forget     bool // a configuration that was refused for a full disk ends that run of Raft (I24)
}

var allRules = rules{
	clamp: true, raise: true, shorten: true, install: true, heartbeats: true, persist: true,
	reserve: true, refused: true, prove: true, shy: true, single: true, preface: true, forget: true,
}

// transport is the raft.Transport of one run of Raft. It wraps the library's
// NetworkTransport, one for what goes out and one for every peer's inbound
// connections, and keeps the rules above, which close open bugs of the library.
type transport struct {
	id      string
	cluster string
	dial    func(ctx context.Context, id string) (net.Conn, error)
	logger  hclog.Logger
	rules   rules
	start   func() (index, term uint64) // of the entry just below our log's first
	flip    func()                      // Raft has finished starting

	// heard is called for every AppendEntries that is not a heartbeat, with the
	// leader's term and its commit index before any clamp. If it returns a
	// function, that is called once Raft has answered.
	heard func(term, commit uint64) func()
	// replicates says whether this node, in that term, still has to replicate to
	// that peer.
	replicates func(id string, term uint64) bool
	// install decides about a checkpoint a leader sends; it answers the RPC, or
	// leaves it unanswered when Raft is about to be stopped.
	install func(rpc raft.RPC, req *raft.InstallSnapshotRequest, state []byte)
	reads   *reads // learns who answers as this node's follower

	// takes refuses entries that this node has no room for, and low says that it
	// tells its leader of that; full counts what the store refused for its disk.
	// answered is told how a peer answered an AppendEntries. They may be nil.
	takes    func([]*raft.Log) error
	low      func() bool
	full     func() uint64
	answered func(id string, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse, err error)
	// sends is a test's look at what goes out; nil in production.
	sends func(*raft.AppendEntriesRequest)
	// shy says that this node should not try to lead now; nil: never.
	shy func() bool

	out  *raft.NetworkTransport
	rpcs chan raft.RPC // unbuffered: what Raft has not taken, its sender waits for

	ctx    context.Context //nolint:containedctx // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // mergers, installs, inbound connections

	mu     sync.Mutex
	peers  map[string]*peer      // guarded by mu
	conns  map[*trackedConn]bool // open ones, both directions; guarded by mu
	closed bool                  // guarded by mu; once true nothing is added
}

var (
	_ raft.Transport   = (*transport)(nil)
	_ raft.WithPreVote = (*transport)(nil)
	_ raft.WithClose   = (*transport)(nil)
)

var errTransportClosed = errors.New("raft transport is closed")

// open starts the transport's outbound half. The caller has set the fields.
func (t *transport) open() {
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.rpcs = make(chan raft.RPC)
	t.peers = make(map[string]*peer)
	t.conns = make(map[*trackedConn]bool)
	t.out = raft.NewNetworkTransportWithConfig(t.netConfig(&outbound{t: t}))
}

func (t *transport) netConfig(s raft.StreamLayer) *raft.NetworkTransportConfig {
	inFlight := 1
	if !t.rules.single {
		inFlight = 2
	}
	return &raft.NetworkTransportConfig{
		Logger: t.logger, Stream: s, MaxPool: maxPool, MaxRPCsInFlight: inFlight, Timeout: rpcTimeout,
	}
}

// Consumer implements raft.Transport.
func (t *transport) Consumer() <-chan raft.RPC { return t.rpcs }

// LocalAddr implements raft.Transport: the address of a node is its id.
func (t *transport) LocalAddr() raft.ServerAddress { return raft.ServerAddress(t.id) }

// EncodePeer implements raft.Transport. Raft persists votes in this form.
func (t *transport) EncodePeer(_ raft.ServerID, addr raft.ServerAddress) []byte { return []byte(addr) }

// DecodePeer implements raft.Transport.
func (t *transport) DecodePeer(b []byte) raft.ServerAddress { return raft.ServerAddress(b) }

// SetHeartbeatHandler installs nothing: with a handler, heartbeats would change
// term and state beside the main loop (hashicorp/raft #695). NewRaft calls it
// after restoring and before starting anything.
func (t *transport) SetHeartbeatHandler(handler func(raft.RPC)) {
	t.flip()
	if t.rules.heartbeats {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.peers {
		p.net.SetHeartbeatHandler(handler)
	}
}

// AppendEntriesPipeline implements raft.Transport: never, since a pipeline can
// wedge a follower.
func (t *transport) AppendEntriesPipeline(id raft.ServerID, addr raft.ServerAddress) (raft.AppendPipeline, error) {
	if !t.rules.single {
		return t.out.AppendEntriesPipeline(id, addr)
	}
	return nil, raft.ErrPipelineReplicationNotSupported
}

// AppendEntries implements raft.Transport. With one RPC in flight Raft reads
// back the very struct it passed, so that it may be shortened.
func (t *transport) AppendEntries(id raft.ServerID, addr raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if t.sends != nil {
		t.sends(req)
	}
	if t.rules.shorten {
		shorten(req, maxAppendBytes)
	}
	started := t.reads.started()
	err := t.appendEntries(id, addr, req, resp)
	if err == nil && resp.Success && resp.Term == req.Term {
		t.reads.acknowledged(string(id), req.Term, started)
	}
	return err
}

func (t *transport) appendEntries(id raft.ServerID, addr raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	call := func() error {
		err := t.out.AppendEntries(id, addr, req, resp)
		if t.answered != nil {
			t.answered(string(id), req, resp, err)
		}
		return err
	}
	if isHeartbeat(req) {
		return t.again(call)
	}
	err := t.persist(id, req.Term, unreachable, call)
	if isRefusal(err) && t.rules.refused {
		return t.withoutRecords(req, call)
	}
	return err
}

// shorten cuts the entries of req where their bytes exceed limit, keeping one.
func shorten(req *raft.AppendEntriesRequest, limit int) {
	size := 0
	for i, e := range req.Entries {
		size += len(e.Data) + entryOverhead
		if i > 0 && size > limit {
			req.Entries = req.Entries[:i]
			return
		}
	}
}

// RequestVote implements raft.Transport.
func (t *transport) RequestVote(id raft.ServerID, addr raft.ServerAddress, req *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return t.again(func() error { return t.out.RequestVote(id, addr, req, resp) })
}

// RequestPreVote implements raft.WithPreVote.
func (t *transport) RequestPreVote(id raft.ServerID, addr raft.ServerAddress, req *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	if t.isShy() {
		return errShy
	}
	return t.again(func() error { return t.out.RequestPreVote(id, addr, req, resp) })
}

func (t *transport) isShy() bool { return t.rules.shy && t.shy != nil && t.shy() }

// TimeoutNow implements raft.Transport.
func (t *transport) TimeoutNow(id raft.ServerID, addr raft.ServerAddress, req *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return t.again(func() error { return t.out.TimeoutNow(id, addr, req, resp) })
}

// InstallSnapshot implements raft.Transport.
func (t *transport) InstallSnapshot(id raft.ServerID, addr raft.ServerAddress, req *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	// Only a failed dial is sure to have left data unread.
	return t.persist(id, req.Term, isDialError, func() error { return t.out.InstallSnapshot(id, addr, req, resp, data) })
}

// again repeats an RPC that met a connection its peer had closed while it lay in
// the pool, as all do after the peer restarted. Otherwise the first vote asked
// of such a peer would fail, and an election with it. All these RPCs may be
// received twice.
func (t *transport) again(call func() error) error {
	var err error
	for range maxPool + 1 {
		if err = call(); err == nil || !isClosedConn(err) || t.ctx.Err() != nil {
			return err
		}
	}
	return err
}

func isClosedConn(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}

// Close implements raft.WithClose: it closes every connection and waits for
// whatever serves one. Calling it again is harmless.
func (t *transport) Close() error {
	t.mu.Lock()
	first := !t.closed
	t.closed = true
	peers, conns := t.peers, t.conns
	if first {
		t.peers, t.conns = nil, nil
	}
	t.mu.Unlock()
	if !first {
		t.wg.Wait()
		return nil
	}
	errs := []error{t.out.Close()}
	for _, p := range peers {
		errs = append(errs, p.net.Close())
	}
	t.cancel()
	for c := range conns {
		_ = c.Conn.Close() // whoever reads from it reports it, and ends
	}
	t.wg.Wait()
	return errors.Join(errs...)
}

// trackedConn is a connection the transport closes when it closes.
type trackedConn struct {
	net.Conn
	peer    string // whose inbound connection it is; guarded by transport.mu
	once    sync.Once
	release func()
}

// Close closes the connection and forgets it.
func (c *trackedConn) Close() error {
	c.once.Do(c.release)
	return c.Conn.Close()
}

// track notes an open connection. If counted, Close of the transport waits
// until it has been closed by whoever serves it.
func (t *transport) track(conn net.Conn, counted bool) (*trackedConn, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, errTransportClosed
	}
	c := &trackedConn{Conn: conn}
	c.release = func() {
		t.mu.Lock()
		delete(t.conns, c)
		t.mu.Unlock()
		if counted {
			t.wg.Done()
		}
	}
	t.conns[c] = true
	if counted {
		t.wg.Add(1)
	}
	return c, nil
}

// outbound is the raft.StreamLayer that only dials.
type outbound struct{ t *transport }

// Dial opens a connection to the node with that id and sends the preface.
func (o *outbound) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	t := o.t
	if t.ctx.Err() != nil { // a Raft whose write hangs goes on sending heartbeats
		return nil, errTransportClosed
	}
	ctx, cancel := context.WithTimeout(t.ctx, timeout)
	defer cancel()
	conn, err := t.dial(ctx, string(addr))
	if err != nil {
		return nil, &dialError{to: string(addr), err: err}
	}
	tracked, err := t.track(conn, false)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if err := sendPreface(tracked, preface{cluster: t.cluster, from: t.id, to: string(addr)}); err != nil {
		return nil, errors.Join(err, tracked.Close())
	}
	return tracked, nil
}

// Accept implements net.Listener: nothing ever comes in here.
func (o *outbound) Accept() (net.Conn, error) {
	<-o.t.ctx.Done()
	return nil, errTransportClosed
}

// Close implements net.Listener.
func (o *outbound) Close() error { return nil }

// Addr implements net.Listener.
func (o *outbound) Addr() net.Addr { return idAddr(o.t.id) }

// idAddr is a node id as a net.Addr.
type idAddr string

func (idAddr) Network() string  { return "logd-raft" }
func (a idAddr) String() string { return string(a) }
