package replica

import (
	"fmt"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

// I3: entries that Raft applies again change nothing. Without the guard their
// records get offsets a second time.
func TestNothingIsAppliedAgain(t *testing.T) {
	for _, off := range []bool{false, true} {
		t.Run(fmt.Sprint("guard off ", off), func(t *testing.T) {
			log, err := commitlog.Open(commitlog.Options{FS: memfs.New(), Dir: "log"})
			require.NoError(t, err)
			defer log.Close()
			f := &fsm{
				log: log, m: newMachine(), moved: func(due) {}, replayed: off, checkpointEntries: 1 << 30, checkpointBytes: 1 << 40,
				fail: func(err error) { t.Fatal(err) },
			}
			var logs []*raft.Log
			for i := range uint64(6) {
				e := proposalOf(Batch{Count: 1, Records: records(fmt.Sprint(i))}).encode()
				logs = append(logs, &raft.Log{Index: i + 1, Term: 1, Type: raft.LogCommand, Data: e})
				require.NoError(t, log.Append([]commitlog.Entry{{Index: i + 1, Term: 1, Data: e}}))
			}
			f.ApplyBatch(logs)
			require.Equal(t, []uint64{6, 6}, []uint64{f.m.next, log.Visible()})
			f.ApplyBatch(logs[2:])
			if off {
				require.Equal(t, uint64(10), log.Visible(), "this is what the guard prevents")
				return
			}
			require.Equal(t, []uint64{6, 6}, []uint64{f.m.next, log.Visible()})
		})
	}
}

// I9: Raft has one AppendEntries to a peer under way. Without the rule it keeps
// several in a pipeline, where nobody shortens them.
func TestOneAppendEntriesIsUnderWay(t *testing.T) {
	for _, on := range []bool{true, false} {
		t.Run(fmt.Sprint("rule ", on), func(t *testing.T) {
			r := allRules
			r.single = on
			a, b := link(t, r)
			pipeline, err := a.AppendEntriesPipeline(raft.ServerID(b.id), raft.ServerAddress(b.id))
			if on {
				require.ErrorIs(t, err, raft.ErrPipelineReplicationNotSupported)
				return
			}
			require.NoError(t, err)
			for first := range uint64(2) {
				req := &raft.AppendEntriesRequest{RPCHeader: rpcHeader(a.id), Term: 1, PrevLogEntry: first * 10}
				for i := range uint64(10) {
					req.Entries = append(req.Entries, &raft.Log{Index: first*10 + i + 1, Term: 1, Data: make([]byte, 1<<20)})
				}
				sent := make(chan error, 1)
				go func() {
					_, err := pipeline.AppendEntries(req, &raft.AppendEntriesResponse{})
					sent <- err
				}()
				rpc := <-b.Consumer()
				require.Len(t, rpc.Command.(*raft.AppendEntriesRequest).Entries, 10, "this is what one at a time prevents")
				rpc.Respond(&raft.AppendEntriesResponse{Success: true}, nil)
				require.NoError(t, <-sent)
				require.NoError(t, (<-pipeline.Consumer()).Error())
			}
			require.NoError(t, pipeline.Close())
		})
	}
}
