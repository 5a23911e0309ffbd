package replica

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// crafts lets a checkpoint arrive that the leader might have sent: from any node,
// for before, inside or beyond the log of the one that gets it.
func (w *world) crafts(rng *rand.Rand) {
	for w.pause(time.Duration(2000+rng.IntN(20000)) * time.Millisecond) {
		l, up := w.leader(), w.up()
		if l == nil || !l.r.View().IsLeader || len(up) < 2 {
			continue
		}
		term := l.r.View().Term
		from, to := up[rng.IntN(len(up))], up[rng.IntN(len(up))]
		if to == l {
			continue
		}
		meta, state, err := from.checkpoint(rng)
		if err != nil || meta == nil || l.r.Log().Last() < meta.Index {
			continue
		}
		w.o.say(to.id, "is sent a crafted checkpoint at .., of term ..", meta.Index, meta.Term)
		w.o.count(func(c *counts) { c.Crafted++ })
		c := &crafter{w: w, from: l, to: to}
		c.net = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Stream: c, MaxRPCsInFlight: 1, Timeout: 5 * time.Second, Logger: hclog.NewNullLogger(),
		})
		req := &raft.InstallSnapshotRequest{
			RPCHeader:       raft.RPCHeader{ProtocolVersion: 3, ID: []byte(l.id), Addr: []byte(l.id)},
			SnapshotVersion: 1, Term: term, LastLogIndex: meta.Index, LastLogTerm: meta.Term, Size: int64(len(state)),
			Configuration: raft.EncodeConfiguration(meta.Configuration), ConfigurationIndex: meta.ConfigurationIndex,
		}
		var resp raft.InstallSnapshotResponse
		_ = c.net.InstallSnapshot(raft.ServerID(to.id), raft.ServerAddress(to.id), req, &resp, bytes.NewReader(state))
		_ = c.net.Close()
		c.end()
	}
}

// checkpoint reads one of a node's, on a goroutine that may end with the node.
func (n *simNode) checkpoint(rng *rand.Rand) (meta *raft.SnapshotMeta, state []byte, err error) {
	pick := rng.IntN(1 << 20)
	done := make(chan struct{})
	go func() {
		defer close(done)
		snaps := n.r.store.Snapshots()
		metas, lerr := snaps.List()
		if err = lerr; err != nil || len(metas) == 0 {
			return
		}
		m, body, oerr := snaps.Open(metas[pick%len(metas)].ID)
		if err = oerr; err != nil {
			return
		}
		state, err = io.ReadAll(body)
		meta = m
	}()
	<-done
	return meta, state, err
}

// crafter is the raft.StreamLayer of an RPC written by hand.
type crafter struct {
	w        *world
	from, to *simNode
	net      *raft.NetworkTransport
	conns    []*simConn
}

func (c *crafter) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (c *crafter) Close() error              { return nil }
func (c *crafter) Addr() net.Addr            { return idAddr(c.from.id) }

func (c *crafter) Dial(raft.ServerAddress, time.Duration) (net.Conn, error) {
	if !c.to.alive.Load() {
		return nil, errSimRefused
	}
	conn := c.w.net.connect(nil, c.to, c.from.id, c.to.id)
	c.conns = append(c.conns, conn)
	c.to.r.Accept(conn.peer, NameOf(c.from.id))
	_, err := conn.Write(preface{cluster: simCluster, from: c.from.id, to: c.to.id}.encode())
	return conn, err
}

func (c *crafter) end() {
	for _, conn := range c.conns {
		conn.reset()
	}
}
