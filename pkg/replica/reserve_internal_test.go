package replica

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

func TestReserveOf(t *testing.T) {
	const mib = 1 << 20
	for name, tc := range map[string]struct{ room, used, segment, want uint64 }{
		"a usual disk":               {room: 100_000, used: 1000, segment: 64, want: 256},
		"large segments":             {room: 100_000, used: 1000, segment: 128, want: 512},
		"a full disk, a large log":   {room: 0, used: 2000, segment: 64, want: 256},
		"a small disk":               {room: 500, used: 0, segment: 64, want: 125},
		"a small disk, well filled":  {room: 100, used: 400, segment: 64, want: 125},
		"never less than it can do":  {room: 100, used: 0, segment: 64, want: 80},
		"small segments, small disk": {room: 30, used: 0, segment: 1, want: 17},
	} {
		require.Equal(t, tc.want*mib, reserveOf(tc.room*mib, tc.used*mib, tc.segment*mib), name)
	}
}

// A peer that refuses records gets what comes before them and the commit index,
// at a measured pace, and Raft reads back what was really sent. Without the rule
// Raft is told of the failure, and would wait longer and longer.
func TestARefusalLeavesTheRecordsOut(t *testing.T) {
	for _, on := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			r := allRules
			r.refused = on
			a, b := link(t, r)
			var low []bool
			a.answered = func(id string, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse, err error) {
				var v voters
				v.heard(id, req, resp, err)
				l, _ := v.stand(id, time.Second)
				low = append(low, l)
			}
			b.low, b.full = func() bool { return true }, func() uint64 { return 0 }
			b.takes = func(entries []*raft.Log) error {
				for _, e := range entries {
					if hasRecords(e) {
						return errRefused
					}
				}
				return nil
			}
			var got [][]*raft.Log
			var commits []uint64
			done := make(chan struct{})
			go func() {
				defer close(done)
				for {
					select {
					case rpc := <-b.Consumer():
						req := rpc.Command.(*raft.AppendEntriesRequest)
						got, commits = append(got, req.Entries), append(commits, req.LeaderCommitIndex)
						rpc.Respond(&raft.AppendEntriesResponse{RPCHeader: rpcHeader(b.id), Success: true}, nil)
					case <-b.ctx.Done():
						return
					}
				}
			}()
			entry := func(index uint64, kind byte) *raft.Log {
				return &raft.Log{Index: index, Term: 1, Type: raft.LogCommand, Data: []byte{kind, 0}}
			}
			req := &raft.AppendEntriesRequest{Term: 1, PrevLogEntry: 4, PrevLogTerm: 1, LeaderCommitIndex: 4,
				Entries: []*raft.Log{{Index: 5, Term: 1, Type: raft.LogNoop}, entry(6, kindControl), entry(7, kindData), entry(8, kindControl)}}
			begin := time.Now()
			err := a.call(b.id, req)
			if !on {
				require.ErrorContains(t, err, errRefused.Error())
				require.Empty(t, got)
			} else {
				require.NoError(t, err)
				require.Equal(t, refusedPause, time.Since(begin))
				require.Len(t, req.Entries, 2, "Raft knows what was sent")
				require.Len(t, got, 1)
				require.Len(t, got[0], 2)
				require.Equal(t, []uint64{4}, commits)
				require.Equal(t, []bool{true, true}, low, "by the refusal, and by the mark")
			}
			require.NoError(t, a.Close())
			require.NoError(t, b.Close())
			<-done
		})
	}
}

// A follower whose store refuses entries for its disk does not say Success=false:
// its leader would go back in the log.
func TestAFullStoreIsAnError(t *testing.T) {
	resp := &raft.RPCResponse{Response: &raft.AppendEntriesResponse{RPCHeader: rpcHeader("b.00000002")}}
	markLow(resp, true)
	require.True(t, isRefusal(resp.Error))
	resp = &raft.RPCResponse{Response: &raft.AppendEntriesResponse{RPCHeader: rpcHeader("b.00000002"), Success: true}}
	markLow(resp, true)
	require.NoError(t, resp.Error, "something else met the full disk")
	resp = &raft.RPCResponse{Response: &raft.AppendEntriesResponse{RPCHeader: rpcHeader("b.00000002")}}
	markLow(resp, false)
	require.NoError(t, resp.Error, "a refusal of Raft's own stays one")
}
