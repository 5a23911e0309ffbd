package replica

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/hashicorp/raft"

	"github.com/logd-io/logd/pkg/raftstore"
)

// installTimeout bounds the reading of a checkpoint a leader sends.
const installTimeout = 10 * time.Second

// peer is an authenticated node that connects to us. A raft.RPC does not say
// which connection it came from, so every peer has a NetworkTransport of its
// own, and whatever comes out of that is known to be that peer's.
type peer struct {
	t   *transport
	id  string
	net *raft.NetworkTransport
	in  chan net.Conn // unbuffered: accepted connections on their way to net

	ctx    context.Context //nolint:containedctx // ends with the transport's, or when the peer is forgotten
	cancel context.CancelFunc
}

// Accept implements net.Listener for the peer's NetworkTransport.
func (p *peer) Accept() (net.Conn, error) {
	select {
	case c := <-p.in:
		return c, nil
	case <-p.ctx.Done():
		return nil, errTransportClosed
	}
}

// Close implements net.Listener.
func (p *peer) Close() error { return nil }

// Addr implements net.Listener.
func (p *peer) Addr() net.Addr { return idAddr(p.t.id) }

// Dial implements raft.StreamLayer; this half never dials.
func (p *peer) Dial(raft.ServerAddress, time.Duration) (net.Conn, error) {
	return nil, errTransportClosed
}

// accept takes a connection of a node whose certificate has that name: it reads
// and checks the preface and hands the connection to its peer's transport.
func (t *transport) accept(conn net.Conn, certName string) {
	tracked, err := t.track(conn, true)
	if err != nil {
		_ = conn.Close() // its sender sees a closed connection, as it must
		return
	}
	go func() {
		if err := t.admit(tracked, certName); err != nil {
			if t.ctx.Err() == nil {
				t.logger.Warn("raft connection refused", "certificate", certName, "err", err)
			}
			_ = tracked.Close()
		}
	}()
}

func (t *transport) admit(conn *trackedConn, certName string) error {
	if err := conn.SetDeadline(time.Now().Add(prefaceTimeout)); err != nil {
		return err
	}
	pre, err := readPreface(conn)
	if err != nil {
		return err
	}
	if err := pre.check(t.cluster, t.id, certName); err != nil && t.rules.preface {
		return err
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	p, err := t.peer(pre.from, conn)
	if err != nil {
		return err
	}
	select {
	case p.in <- &servedConn{conn}:
		return nil
	case <-p.ctx.Done():
		return errTransportClosed
	}
}

// servedConn is a connection under its peer's NetworkTransport. It sets the
// deadline of each write; a connection may be idle between RPCs as long as it
// likes, since peers keep a few for the next election.
type servedConn struct{ *trackedConn }

// Write writes under a deadline of its own.
func (c *servedConn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(rpcTimeout)); err != nil {
		return 0, err
	}
	return c.trackedConn.Write(b)
}

// peer finds or makes the peer of that id, whose connection conn is.
func (t *transport) peer(id string, conn *trackedConn) (*peer, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, errTransportClosed
	}
	if p := t.peers[id]; p != nil {
		conn.peer = id
		return p, nil
	}
	if len(t.peers) >= maxPeers && !t.forget() {
		return nil, fmt.Errorf("more than %d peers", maxPeers)
	}
	conn.peer = id
	p := &peer{t: t, id: id, in: make(chan net.Conn)}
	p.ctx, p.cancel = context.WithCancel(t.ctx)
	p.net = raft.NewNetworkTransportWithConfig(t.netConfig(p))
	t.peers[id] = p
	t.wg.Add(1)
	go func() {
		defer t.wg.Done()
		p.merge()
	}()
	return p, nil
}

// forget ends the peers that have no connection open: nodes that were replaced, in
// the life of one that stays. mu is held.
func (t *transport) forget() (some bool) {
	open := make(map[string]bool)
	for c := range t.conns {
		open[c.peer] = true
	}
	for id, p := range t.peers {
		if !open[id] {
			delete(t.peers, id)
			p.cancel()
			_ = p.net.Close() // it has no listener, and no connection
			some = true
		}
	}
	return some
}

// merge passes the peer's RPCs on to Raft, checked and hardened.
func (p *peer) merge() {
	for {
		select {
		case rpc := <-p.net.Consumer():
			if err := p.serve(rpc); err != nil {
				rpc.Respond(nil, err)
			}
		case <-p.ctx.Done():
			return
		}
	}
}

// serve passes one RPC on. An error is the answer to it.
func (p *peer) serve(rpc raft.RPC) error {
	t := p.t
	h, ok := rpc.Command.(raft.WithRPCHeader)
	if !ok {
		return fmt.Errorf("rpc without a header")
	}
	if hdr := h.GetRPCHeader(); string(hdr.ID) != p.id || string(hdr.Addr) != p.id {
		return fmt.Errorf("rpc claims to come from %q, the connection is %s's", hdr.ID, p.id)
	}
	switch req := rpc.Command.(type) {
	case *raft.AppendEntriesRequest:
		answered, err := t.harden(req)
		if err != nil {
			return err
		}
		if t.low != nil && t.low() {
			full := t.full()
			rpc = intercept(t, rpc, func(r *raft.RPCResponse) { markLow(r, t.full() != full) })
		}
		if answered != nil {
			rpc = relay(t, rpc, answered)
		}
	case *raft.TimeoutNowRequest:
		if t.isShy() {
			return errShy
		}
	case *raft.InstallSnapshotRequest:
		if t.rules.install {
			t.wg.Add(1) // merge holds the group, so it is not being waited out yet
			go func() {
				defer t.wg.Done()
				p.receive(rpc, req)
			}()
			return nil
		}
	}
	select {
	case t.rpcs <- rpc:
		return nil
	case <-t.ctx.Done():
		return errTransportClosed
	}
}

// harden makes an AppendEntries one that Raft handles rightly.
func (t *transport) harden(req *raft.AppendEntriesRequest) (answered func(), err error) {
	for i, e := range req.Entries {
		switch {
		case e == nil || e.Index != req.PrevLogEntry+1+uint64(i):
			return nil, fmt.Errorf("entries do not follow entry %d", req.PrevLogEntry)
		case len(e.Extensions) != 0:
			return nil, fmt.Errorf("entry %d has extensions", e.Index)
		}
		switch e.Type {
		case raft.LogCommand, raft.LogNoop, raft.LogBarrier:
		case raft.LogConfiguration:
			// Raft panics on one that does not decode.
			if _, err := raftstore.DecodeConfiguration(e.Data); err != nil {
				return nil, fmt.Errorf("entry %d: %w", e.Index, err)
			}
		default:
			return nil, fmt.Errorf("entry %d is of type %d, which nothing here writes", e.Index, e.Type)
		}
	}
	if !isHeartbeat(req) && t.heard != nil {
		answered = t.heard(req.Term, req.LeaderCommitIndex)
	}
	if t.rules.raise {
		raise(req, t.start)
	}
	if verified := req.PrevLogEntry + uint64(len(req.Entries)); t.rules.clamp && req.LeaderCommitIndex > verified {
		req.LeaderCommitIndex = verified
	}
	if t.takes != nil && t.rules.reserve {
		if err := t.takes(req.Entries); err != nil {
			return nil, err
		}
	}
	return answered, nil
}

// raise lets an AppendEntries that begins below our log begin at its start. All
// that is below is committed, and so equal to the leader's. Raft would look for
// the previous entry, not find it, and the leader would send its checkpoint,
// which we hold, for ever.
func raise(req *raft.AppendEntriesRequest, start func() (index, term uint64)) {
	index, term := start()
	if req.PrevLogEntry >= index || req.PrevLogEntry == 0 && len(req.Entries) == 0 {
		return
	}
	below := min(index-req.PrevLogEntry, uint64(len(req.Entries)))
	req.Entries = req.Entries[below:]
	req.PrevLogEntry, req.PrevLogTerm = index, term
}

// relay calls answered when Raft has answered rpc.
func relay(t *transport, rpc raft.RPC, answered func()) raft.RPC {
	return pass(t, rpc, nil, answered)
}

// intercept lets edit change Raft's answer to rpc.
func intercept(t *transport, rpc raft.RPC, edit func(*raft.RPCResponse)) raft.RPC {
	return pass(t, rpc, edit, nil)
}

func pass(t *transport, rpc raft.RPC, edit func(*raft.RPCResponse), answered func()) raft.RPC {
	to := rpc.RespChan
	from := make(chan raft.RPCResponse, 1) // capacity 1: Raft never waits for us
	rpc.RespChan = from
	t.wg.Add(1)
	go func() {
		defer t.wg.Done()
		select {
		case resp := <-from:
			if edit != nil {
				edit(&resp)
			}
			to <- resp // its capacity is 1 as well
			if answered != nil {
				answered()
			}
		case <-t.ctx.Done():
		}
	}()
	return rpc
}

// receive reads the whole checkpoint of an InstallSnapshot, beside the path of
// the other RPCs, and hands it on. Raft itself never sees it.
func (p *peer) receive(rpc raft.RPC, req *raft.InstallSnapshotRequest) {
	if req.Size < 0 || req.Size > raftstore.MaxStateBytes || len(req.Configuration) > raftstore.MaxStateBytes {
		rpc.Respond(nil, fmt.Errorf("checkpoint of %d bytes is too large", req.Size))
		return
	}
	state := make([]byte, req.Size)
	late := time.AfterFunc(installTimeout, p.hangUp)
	_, err := io.ReadFull(rpc.Reader, state)
	late.Stop()
	if err != nil {
		rpc.Respond(nil, fmt.Errorf("read checkpoint: %w", err))
		return
	}
	p.t.install(rpc, req, state)
}

// hangUp closes the peer's inbound connections: one of them is stuck, and an
// RPC does not tell which.
func (p *peer) hangUp() {
	t := p.t
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.conns {
		if c.peer == p.id {
			_ = c.Conn.Close() // its server ends, and closes it properly
		}
	}
}
