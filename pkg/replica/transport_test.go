package replica

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

const transportCluster = "00000000-0000-4000-8000-000000000000"

// link is two transports, a dialling b.
func link(t *testing.T, r rules) (a, b *transport) {
	ids := []string{"a.00000001", "b.00000002"}
	ts := make([]*transport, 2)
	for i := range ts {
		ts[i] = &transport{
			id: ids[i], cluster: transportCluster, logger: hclog.NewNullLogger(), rules: r,
			start: func() (uint64, uint64) { return 0, 0 }, flip: func() {}, reads: newReads(nil, false),
			dial: func(context.Context, string) (net.Conn, error) {
				near, far := net.Pipe()
				ts[1-i].accept(far, NameOf(ids[i]))
				return near, nil
			},
		}
		ts[i].open()
		t.Cleanup(func() { require.NoError(t, ts[i].Close()) })
	}
	return ts[0], ts[1]
}

func rpcHeader(id string) raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: 3, ID: []byte(id), Addr: []byte(id)}
}

func (t *transport) call(to string, req *raft.AppendEntriesRequest) error {
	req.RPCHeader = rpcHeader(t.id)
	return t.AppendEntries(raft.ServerID(to), raft.ServerAddress(to), req, &raft.AppendEntriesResponse{})
}

// I5: whatever handler Raft sets, a heartbeat arrives on Consumer. Without the
// rule it goes to the handler, beside the main loop.
func TestHeartbeatsArriveOnConsumer(t *testing.T) {
	for _, on := range []bool{true, false} {
		t.Run(fmt.Sprint("rule ", on), func(t *testing.T) {
			r := allRules
			r.heartbeats = on
			a, b := link(t, r)
			loop, beside := 0, 0
			var wg sync.WaitGroup
			wg.Add(1)
			stop := make(chan struct{})
			go func() {
				defer wg.Done()
				for {
					select {
					case rpc := <-b.Consumer():
						loop++
						rpc.Respond(&raft.AppendEntriesResponse{Success: true}, nil)
					case <-stop:
						return
					}
				}
			}()
			require.NoError(t, a.call(b.id, &raft.AppendEntriesRequest{Term: 1})) // makes the peer known
			b.SetHeartbeatHandler(func(rpc raft.RPC) {
				beside++
				rpc.Respond(&raft.AppendEntriesResponse{Success: true}, nil)
			})
			require.NoError(t, a.call(b.id, &raft.AppendEntriesRequest{Term: 1}))
			close(stop)
			wg.Wait()
			if on {
				require.Equal(t, []int{2, 0}, []int{loop, beside})
			} else {
				require.Equal(t, []int{1, 1}, []int{loop, beside})
			}
		})
	}
}

// I9: an RPC carries at most 4 MiB of entries, and Raft sees which were sent.
func TestAppendEntriesAreCutByBytes(t *testing.T) {
	for _, on := range []bool{true, false} {
		t.Run(fmt.Sprint("rule ", on), func(t *testing.T) {
			r := allRules
			r.shorten = on
			a, b := link(t, r)
			send := func(n, size int) (sent, received int) {
				req := &raft.AppendEntriesRequest{Term: 1}
				for i := range n {
					req.Entries = append(req.Entries, &raft.Log{Index: uint64(i + 1), Term: 1, Data: make([]byte, size)})
				}
				done := make(chan error, 1)
				go func() { done <- a.call(b.id, req) }()
				rpc := <-b.Consumer()
				received = len(rpc.Command.(*raft.AppendEntriesRequest).Entries)
				rpc.Respond(&raft.AppendEntriesResponse{Success: true}, nil)
				require.NoError(t, <-done)
				return len(req.Entries), received
			}
			sent, received := send(10, 1<<20)
			require.Equal(t, sent, received)
			if on {
				require.Equal(t, 3, received)
			} else {
				require.Equal(t, 10, received)
			}
			_, received = send(1, 5<<20)
			require.Equal(t, 1, received, "at least one")
			_, received = send(64, 100)
			require.Equal(t, 64, received)
		})
	}
}

// A connection that died in the pool costs an election nothing.
func TestVotesSurviveConnectionsThatDiedInThePool(t *testing.T) {
	a, b := link(t, allRules)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Add(1)
	go func() {
		defer wg.Done()
		for {
			select {
			case rpc := <-b.Consumer():
				rpc.Respond(&raft.RequestVoteResponse{Granted: true}, nil)
			case <-stop:
				return
			}
		}
	}()
	vote := func() error {
		return a.RequestVote(raft.ServerID(b.id), raft.ServerAddress(b.id),
			&raft.RequestVoteRequest{RPCHeader: rpcHeader(a.id), Term: 2}, &raft.RequestVoteResponse{})
	}
	var calls sync.WaitGroup
	for range maxPool {
		calls.Add(1)
		go func() {
			defer calls.Done()
			require.NoError(t, vote())
		}()
	}
	calls.Wait()
	b.mu.Lock()
	for c := range b.conns {
		_ = c.Conn.Close()
	}
	b.mu.Unlock()
	require.NoError(t, vote())
	close(stop)
	wg.Wait()
}

// The names are ids, unchanged: Raft persists votes in this form.
func TestAddressesAreIDs(t *testing.T) {
	a, _ := link(t, allRules)
	require.Equal(t, raft.ServerAddress(a.id), a.LocalAddr())
	require.Equal(t, []byte("x.00000009"), a.EncodePeer("y", "x.00000009"))
	require.Equal(t, raft.ServerAddress("x.00000009"), a.DecodePeer([]byte("x.00000009")))
	_, err := a.AppendEntriesPipeline("x", "x")
	require.ErrorIs(t, err, raft.ErrPipelineReplicationNotSupported)
}

// A future that Raft never answers ends when Raft is gone.
func TestUnansweredFutures(t *testing.T) {
	_, inmem := raft.NewInmemTransport("n")
	store := raft.NewInmemStore()
	conf := raftConfig("n", time.Hour, hclog.NewNullLogger())
	r, err := raft.NewRaft(conf, &fsm{m: newMachine()}, store, store, raft.NewInmemSnapshotStore(), inmem)
	require.NoError(t, err)
	require.NoError(t, r.Shutdown().Error())
	done := make(chan struct{})
	close(done)
	// The channel of proposals has room, so this may be taken by nobody.
	for range 8 {
		f := r.Apply([]byte("x"), 0)
		endWith(f, done)
		require.ErrorIs(t, f.Error(), raft.ErrRaftShutdown)
	}
	require.False(t, endWith(r.AddVoter("a", "a", 0, 0), done), "an answer already")
	require.ErrorIs(t, await(context.Background(), r.Apply(nil, 0), done), raft.ErrRaftShutdown)
}

// I12: so many peers at a time, and not more; who has no connection any more does not
// count, however many nodes were replaced in the life of this one.
func TestPeersThatAreGoneDoNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := &transport{
			id: "b.00000002", cluster: transportCluster, logger: hclog.NewNullLogger(), rules: allRules,
			start: func() (uint64, uint64) { return 0, 0 }, flip: func() {}, reads: newReads(nil, false),
		}
		tr.open()
		n := 0
		connect := func() net.Conn {
			n++
			id := fmt.Sprintf("p%d.%08x", n, n)
			near, far := net.Pipe()
			tr.accept(far, NameOf(id))
			_, err := near.Write(preface{cluster: transportCluster, from: id, to: tr.id}.encode())
			require.NoError(t, err)
			synctest.Wait()
			return near
		}
		taken := func() bool {
			tr.mu.Lock()
			defer tr.mu.Unlock()
			return tr.peers[fmt.Sprintf("p%d.%08x", n, n)] != nil
		}
		for range 3 * maxPeers { // one after the other
			c := connect()
			require.True(t, taken(), n)
			require.NoError(t, c.Close())
			synctest.Wait()
		}
		require.LessOrEqual(t, len(tr.peers), maxPeers)
		var open []net.Conn
		for range maxPeers { // at the same time
			open = append(open, connect())
			require.True(t, taken(), n)
		}
		_ = connect()
		require.False(t, taken())
		require.NoError(t, open[7].Close())
		synctest.Wait()
		last := connect()
		require.True(t, taken())
		for _, c := range append(open, last) {
			_ = c.Close()
		}
		require.NoError(t, tr.Close())
	})
}
