package replica_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/replica"
)

// puppet is a peer whose RPCs a test writes by hand, speaking the real wire
// protocol through the real preface.
type puppet struct {
	t      testing.TB
	c      *cluster
	id     string
	net    *raft.NetworkTransport
	closed chan struct{}
	other  string // cluster it says it is of; "": the test's

	mu    sync.Mutex
	conns []net.Conn // dialled; guarded by mu
}

func newPuppet(c *cluster, id string) *puppet {
	p := &puppet{t: c.t, c: c, id: id, closed: make(chan struct{})}
	p.net = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: p, MaxRPCsInFlight: 1, Timeout: 20 * time.Second, Logger: hclog.NewNullLogger(),
	})
	c.t.Cleanup(p.stop)
	return p
}

func (p *puppet) stop() {
	require.NoError(p.t, p.net.Close())
	close(p.closed)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
}

func (p *puppet) Accept() (net.Conn, error) { <-p.closed; return nil, net.ErrClosed }
func (p *puppet) Close() error              { return nil }
func (p *puppet) Addr() net.Addr            { return &net.TCPAddr{} }

func (p *puppet) Dial(to raft.ServerAddress, _ time.Duration) (net.Conn, error) {
	conn, err := p.c.dial(p.id, string(to))
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.conns = append(p.conns, conn)
	p.mu.Unlock()
	uuid := testCluster
	if p.other != "" {
		uuid = p.other
	}
	_, err = conn.Write(replica.Preface(uuid, p.id, string(to)))
	return conn, err
}

func (p *puppet) header() raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: 3, ID: []byte(p.id), Addr: []byte(p.id)}
}

func (p *puppet) appendEntries(to string, term, prev, prevTerm, commit uint64, entries ...*raft.Log) (raft.AppendEntriesResponse, error) {
	req := &raft.AppendEntriesRequest{RPCHeader: p.header(), Term: term, PrevLogEntry: prev, PrevLogTerm: prevTerm,
		LeaderCommitIndex: commit, Entries: entries}
	var resp raft.AppendEntriesResponse
	err := p.net.AppendEntries(raft.ServerID(to), raft.ServerAddress(to), req, &resp)
	return resp, err
}

// entries gives data entries of one record each.
func entries(from, to, term uint64, msg string) (out []*raft.Log) {
	for i := from; i <= to; i++ {
		out = append(out, &raft.Log{Index: i, Term: term, Type: raft.LogCommand, Data: data(fmt.Sprintf("%s %d", msg, i))})
	}
	return out
}

// data is the payload of an entry with one anonymous record, built by hand.
func data(msg string) []byte {
	records := framed(msg)
	b := append([]byte{1, 1}, make([]byte, 36)...)
	b = append(b, 1, 0, 0, 0, 0)
	b = append(b, make([]byte, 8)...)
	b = append(b, byte(len(records)), 0, 0, 0)
	return append(b, records...)
}

// follower is one bootstrapped node whose two peers are puppets' names. It never
// becomes leader: its election timeout is beyond any test.
func follower(t testing.TB, off ...replica.Switch) (*cluster, *node, *puppet) {
	c := newCluster(t, func(cfg *replica.Config) { cfg.Heartbeat = time.Hour }, off...)
	n := c.add(nodeID(1))
	n.start()
	require.NoError(t, n.r.Bootstrap(context.Background(), testCluster, []string{nodeID(1), nodeID(2), nodeID(3)}))
	n.await("raft runs", func(v replica.View) bool { return v.State == replica.StateFollower })
	return c, n, newPuppet(c, nodeID(2))
}

// I6: a follower commits only what the leader's RPC verified. Without the clamp
// it applies the stale entries of an older leader.
func TestCommitIsClamped(t *testing.T) {
	t.Parallel()
	for _, off := range [][]replica.Switch{nil, {replica.NoClamp}} {
		t.Run(fmt.Sprint("without ", off), func(t *testing.T) {
			_, n, p := follower(t, off...)
			resp, err := p.appendEntries(n.id, 2, 1, 1, 1, entries(2, 10, 2, "stale")...)
			require.NoError(t, err)
			require.True(t, resp.Success)
			resp, err = p.appendEntries(n.id, 3, 4, 2, 10) // 5 to 10 differ there
			require.NoError(t, err)
			require.True(t, resp.Success)
			n.visible(3)
			if off == nil {
				require.Equal(t, uint64(4), n.r.Stats().CommitIndex)
				resp, err = p.appendEntries(n.id, 3, 4, 2, 10, entries(5, 10, 3, "good")...)
				require.NoError(t, err)
				require.True(t, resp.Success)
				n.visible(9)
				_, msgs := n.read()
				require.Equal(t, []string{"stale 2", "stale 3", "stale 4", "good 5", "good 6", "good 7", "good 8", "good 9", "good 10"}, msgs)
				return
			}
			n.visible(9)
			_, msgs := n.read()
			require.Contains(t, msgs, "stale 10", "this is what the clamp prevents")
		})
	}
}

// checkpointOf produces, on a cluster of its own, a checkpoint at an entry with
// k records below it.
func checkpointOf(t testing.TB, k int) (*raft.SnapshotMeta, []byte) {
	c := boot(t, 1, nil)
	for i := range k {
		c.produce([16]byte{9}, uint64(i), fmt.Sprintf("record %d", i))
	}
	n := c.node(nodeID(1))
	require.NoError(t, n.r.Checkpoint())
	snaps := n.r.Store().Snapshots()
	metas, err := snaps.List()
	require.NoError(t, err)
	meta, r, err := snaps.Open(metas[0].ID)
	require.NoError(t, err)
	state, err := io.ReadAll(r)
	require.NoError(t, err)
	return meta, state
}

func (p *puppet) install(to string, term uint64, meta *raft.SnapshotMeta, metaTerm uint64, state []byte) (raft.InstallSnapshotResponse, error) {
	config := raft.Configuration{}
	for i := range 3 {
		config.Servers = append(config.Servers, raft.Server{ID: raft.ServerID(nodeID(i + 1)), Address: raft.ServerAddress(nodeID(i + 1))})
	}
	req := &raft.InstallSnapshotRequest{RPCHeader: p.header(), SnapshotVersion: 1, Term: term,
		LastLogIndex: meta.Index, LastLogTerm: metaTerm, Size: int64(len(state)),
		Configuration: raft.EncodeConfiguration(config), ConfigurationIndex: 1}
	var resp raft.InstallSnapshotResponse
	err := p.net.InstallSnapshot(raft.ServerID(to), raft.ServerAddress(to), req, &resp, bytes.NewReader(state))
	return resp, err
}

// I7: a follower whose log conflicts with the leader's checkpoint and reaches
// beyond it is emptied and goes on. Left to Raft it can never proceed.
func TestInstallOverALongerDivergentLog(t *testing.T) {
	t.Parallel()
	meta, state := checkpointOf(t, 5)
	for _, off := range [][]replica.Switch{nil, {replica.NoInstall}} {
		t.Run(fmt.Sprint("without ", off), func(t *testing.T) {
			c, n, p := follower(t, off...)
			last := meta.Index + 10
			resp, err := p.appendEntries(n.id, 3, 1, 1, 1, entries(2, last, 3, "stale")...)
			require.NoError(t, err)
			require.True(t, resp.Success)
			// A term below or above the follower's is never answered for Raft.
			install, err := p.install(n.id, 2, meta, 4, state)
			require.NoError(t, err)
			require.False(t, install.Success)
			if off == nil {
				_, err = p.install(n.id, 9, meta, 4, state)
				require.Error(t, err)
			}
			_, err = p.appendEntries(n.id, 4, 0, 0, 0)
			require.NoError(t, err)

			install, err = p.install(n.id, 4, meta, 4, state)
			if off == nil {
				require.Error(t, err, "no answer while the checkpoint is installed")
				c.eventually(func() bool { return n.r.Log().Start().Index == meta.Index && n.r.Raft() != nil }, "installed")
				install, err = p.install(n.id, 4, meta, 4, state)
			}
			if off == nil {
				require.NoError(t, err)
				require.True(t, install.Success)
			}
			resp, err = p.appendEntries(n.id, 4, meta.Index, 4, meta.Index+2, entries(meta.Index+1, meta.Index+2, 4, "new")...)
			if off != nil {
				require.False(t, err == nil && resp.Success, "this is what installing with Raft stopped prevents")
				return
			}
			require.NoError(t, err)
			require.True(t, resp.Success)
			n.visible(7)
			lowest, msgs := n.read()
			require.Equal(t, uint64(5), lowest)
			require.Equal(t, []string{fmt.Sprint("new ", meta.Index+1), fmt.Sprint("new ", meta.Index+2)}, msgs)

			// What is below the start, or at it, is held already.
			install, err = p.install(n.id, 4, meta, 4, state)
			require.NoError(t, err)
			require.True(t, install.Success)
			require.Equal(t, meta.Index, n.r.Log().Start().Index)

			require.NoError(t, n.stop())
			n.start()
			require.Equal(t, meta.Index, n.r.Log().Start().Index)
		})
	}
}

// I7: a checkpoint that contradicts what this node knows as committed stops it.
func TestInstallAgainstTheCommitIndexIsFatal(t *testing.T) {
	t.Parallel()
	meta, state := checkpointOf(t, 5)
	_, n, p := follower(t)
	last := meta.Index + 5
	_, err := p.appendEntries(n.id, 3, 1, 1, last, entries(2, last, 3, "committed")...)
	require.NoError(t, err)
	n.visible(last - 1)
	_, err = p.appendEntries(n.id, 4, 0, 0, 0)
	require.NoError(t, err)
	_, err = p.install(n.id, 4, meta, 4, state)
	require.Error(t, err)
	var fatal *replica.FatalError
	require.ErrorAs(t, <-n.ended, &fatal)
	require.NoError(t, n.r.Close())
	n.r = nil
}

// I8: entries from below the log's start on are taken from the start on. Without
// the rule they are refused, and the leader sends its checkpoint for ever.
func TestAppendBelowTheStart(t *testing.T) {
	t.Parallel()
	meta, state := checkpointOf(t, 5)
	for _, off := range [][]replica.Switch{nil, {replica.NoRaise}} {
		t.Run(fmt.Sprint("without ", off), func(t *testing.T) {
			c, n, p := follower(t, off...)
			_, err := p.appendEntries(n.id, 4, 0, 0, 0)
			require.NoError(t, err)
			_, err = p.install(n.id, 4, meta, 4, state)
			require.Error(t, err)
			c.eventually(func() bool { return n.r.Log().Start().Index == meta.Index && n.r.Raft() != nil }, "installed")
			for _, prev := range []uint64{0, 1, meta.Index - 1} {
				es := entries(prev+1, meta.Index+2, 4, "entry")
				resp, err := p.appendEntries(n.id, 4, prev, min(prev, 1), meta.Index+2, es...)
				require.NoError(t, err)
				require.Equal(t, off == nil, resp.Success, "from %d on, over a log that starts after %d", prev, meta.Index)
			}
			resp, err := p.appendEntries(n.id, 4, 1, 1, meta.Index)
			require.NoError(t, err)
			require.Equal(t, off == nil, resp.Success)
		})
	}
}

// I11: an RPC that does not come from the connection's node is refused.
func TestHeadersMustNameThePeer(t *testing.T) {
	t.Parallel()
	_, n, p := follower(t)
	for name, hdr := range map[string]raft.RPCHeader{
		"another id":      {ProtocolVersion: 3, ID: []byte(nodeID(3)), Addr: []byte(p.id)},
		"another address": {ProtocolVersion: 3, ID: []byte(p.id), Addr: []byte(nodeID(3))},
		"none":            {ProtocolVersion: 3},
	} {
		var resp raft.AppendEntriesResponse
		err := p.net.AppendEntries(raft.ServerID(n.id), raft.ServerAddress(n.id),
			&raft.AppendEntriesRequest{RPCHeader: hdr, Term: 99}, &resp)
		require.ErrorContains(t, err, "claims to come from", name)
		var vote raft.RequestVoteResponse
		err = p.net.RequestVote(raft.ServerID(n.id), raft.ServerAddress(n.id),
			&raft.RequestVoteRequest{RPCHeader: hdr, Term: 99}, &vote)
		require.ErrorContains(t, err, "claims to come from", name)
	}
	require.Equal(t, uint64(1), n.r.Stats().Term)
}

// Entries that are not a sequence, or carry what nothing here writes, never
// reach the store.
func TestMalformedAppendEntries(t *testing.T) {
	t.Parallel()
	_, n, p := follower(t)
	gap := append(entries(2, 2, 2, "a"), entries(4, 4, 2, "b")...)
	_, err := p.appendEntries(n.id, 2, 1, 1, 4, gap...)
	require.ErrorContains(t, err, "do not follow")
	ext := entries(2, 2, 2, "a")
	ext[0].Extensions = []byte{1}
	_, err = p.appendEntries(n.id, 2, 1, 1, 2, ext...)
	require.ErrorContains(t, err, "extensions")
	for _, typ := range []raft.LogType{raft.LogConfiguration, raft.LogAddPeerDeprecated, 200} {
		garbage := entries(2, 2, 2, "a")
		garbage[0].Type, garbage[0].Data = typ, []byte{0xff, 0xff}
		_, err = p.appendEntries(n.id, 2, 1, 1, 2, garbage...) // Raft would panic on the first two
		require.ErrorContains(t, err, "entry 2", "type %d", typ)
	}
	require.Equal(t, uint64(1), n.r.Log().Last())
}

// I11: the preface's refusals.
func TestPrefaceRefusals(t *testing.T) {
	t.Parallel()
	c, n, _ := follower(t)
	other := "11111111-0000-4000-8000-000000000000"
	for name, tc := range map[string]struct {
		pre  []byte
		cert string
	}{
		"another cluster":           {replica.Preface(other, nodeID(2), n.id), "n2"},
		"no cluster":                {replica.Preface("", nodeID(2), n.id), "n2"},
		"for another node":          {replica.Preface(testCluster, nodeID(2), nodeID(3)), "n2"},
		"for an older id of it":     {replica.Preface(testCluster, nodeID(2), "n1.ffffffff"), "n2"},
		"another's certificate":     {replica.Preface(testCluster, nodeID(2), n.id), "n3"},
		"a certificate's beginning": {replica.Preface(testCluster, "n2.x.00000002", n.id), "n2"},
		"from itself":               {replica.Preface(testCluster, n.id, n.id), "n1"},
		"no id":                     {replica.Preface(testCluster, "n2", n.id), "n2"},
		"garbage":                   {bytes.Repeat([]byte{0xff}, 64), "n2"},
		"cut short":                 {replica.Preface(testCluster, nodeID(2), n.id)[:20], "n2"},
	} {
		t.Run(name, func(t *testing.T) {
			near, far := net.Pipe()
			defer near.Close()
			c.mu.Lock()
			n.r.Accept(far, tc.cert)
			c.mu.Unlock()
			require.NoError(t, near.SetDeadline(time.Now().Add(testPatience)))
			_, _ = near.Write(tc.pre) // may be refused before it is whole
			_, err := near.Read(make([]byte, 1))
			require.ErrorIs(t, err, io.EOF)
		})
	}
	t.Run("a node in no cluster takes nothing", func(t *testing.T) {
		fresh := c.add(nodeID(4))
		fresh.start()
		near, far := net.Pipe()
		fresh.r.Accept(far, "n2")
		_, err := near.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
		require.NoError(t, near.Close())
	})
}

// A node may be called by a leader its configuration does not name.
func TestStrangerMayLead(t *testing.T) {
	t.Parallel()
	c, n, _ := follower(t)
	p := newPuppet(c, "stranger.0000000a")
	resp, err := p.appendEntries(n.id, 7, 1, 1, 2, entries(2, 2, 7, "a")...)
	require.NoError(t, err)
	require.True(t, resp.Success)
	n.visible(1)
}
