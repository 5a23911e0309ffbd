package server_test

import (
	"bytes"
	"errors"
	"hash/crc32"
	"io"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/replica"
)

// stored serves the entries [first, last] of a log that is damaged from bad on.
func stored(first, last, bad uint64) func(uint64, uint64) (replica.Extract, error) {
	return func(from, to uint64) (replica.Extract, error) {
		x := replica.Extract{Commit: last - 1, First: first, Last: last}
		for i := from; i <= min(to, last, bad-1) && i >= first && len(x.Entries) < 3; i++ {
			x.Entries = append(x.Entries, commitlog.Entry{Index: i, Term: 2, Type: 1, AppendedAt: 5, Data: []byte{byte(i)}})
		}
		return x, nil
	}
}

func TestFetchEntries(t *testing.T) {
	for name, tc := range map[string]struct {
		first, last, bad uint64 // of the log
		from, to         uint64
		want             []uint64
	}{
		"all of them":             {1, 10, 99, 1, math.MaxUint64, []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}},
		"a part":                  {1, 10, 99, 4, 9, []uint64{4, 5, 6, 7, 8, 9}},
		"up to its own damage":    {1, 10, 6, 4, 9, []uint64{4, 5}},
		"begins at its damage":    {1, 10, 6, 6, 9, nil},
		"below the start":         {5, 10, 99, 2, 9, nil},
		"beyond the end":          {1, 10, 99, 11, 12, nil},
		"the whole range of uint": {1, 10, 99, 1, math.MaxUint64, []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t)
			r.node.extract = stored(tc.first, tc.last, tc.bad)
			// Neither a leader nor Raft is needed.
			r.set(func(v *replica.View) { *v = replica.View{ClusterID: cluster, State: replica.StateIdle} })
			s, err := r.peer("n2").FetchEntries(ctxOf(t), &nodev1.FetchEntriesRequest{First: tc.from, Last: tc.to})
			require.NoError(t, err)
			var got []uint64
			messages := 0
			for ; ; messages++ {
				resp, err := s.Recv()
				if errors.Is(err, io.EOF) {
					break
				}
				require.NoError(t, err)
				require.Equal(t, []uint64{tc.last - 1, tc.first, tc.last}, []uint64{resp.CommitIndex, resp.FirstIndex, resp.LastIndex})
				for _, e := range resp.Entries {
					got = append(got, e.Index)
					require.Equal(t, crc32.Checksum(e.Data, crc32.MakeTable(crc32.Castagnoli)), e.PayloadCrc)
					require.Equal(t, []byte{byte(e.Index)}, e.Data)
					require.EqualValues(t, 5, e.AppendedAt)
				}
			}
			require.Equal(t, tc.want, got)
			require.Positive(t, messages, "commit index and range are told in any case")
		})
	}
}

func TestFetchEntriesRefused(t *testing.T) {
	r := start(t)
	for _, req := range []*nodev1.FetchEntriesRequest{{}, {First: 0, Last: 3}, {First: 4, Last: 3}} {
		s, err := r.peer("n2").FetchEntries(ctxOf(t), req)
		require.NoError(t, err)
		_, err = s.Recv()
		require.Equal(t, apierr.ReasonInvalid, apierr.ReasonOf(err), "%v", req)
	}
	r.node.extract = func(uint64, uint64) (replica.Extract, error) {
		return replica.Extract{}, errors.New("the disk is gone")
	}
	s, err := r.peer("n2").FetchEntries(ctxOf(t), &nodev1.FetchEntriesRequest{First: 1, Last: 1})
	require.NoError(t, err)
	_, err = s.Recv()
	require.Equal(t, codes.Internal, status.Code(err))
}

// Peers that repair are served a few at a time, and the others are told to wait.
func TestFetchEntriesIsBounded(t *testing.T) {
	r := start(t)
	inside, leave := make(chan struct{}), make(chan struct{})
	r.node.extract = func(first, _ uint64) (replica.Extract, error) {
		inside <- struct{}{}
		<-leave
		return replica.Extract{}, nil
	}
	peer := r.peer("n2")
	var open []nodev1.Node_FetchEntriesClient
	for range 4 {
		s, err := peer.FetchEntries(ctxOf(t), &nodev1.FetchEntriesRequest{First: 1, Last: 1})
		require.NoError(t, err)
		open = append(open, s)
		<-inside
	}
	s, err := peer.FetchEntries(ctxOf(t), &nodev1.FetchEntriesRequest{First: 1, Last: 1})
	require.NoError(t, err)
	_, err = s.Recv()
	require.Equal(t, apierr.ReasonOverloaded, apierr.ReasonOf(err))
	_, err = peer.FetchCheckpoint(ctxOf(t), &nodev1.FetchCheckpointRequest{MaxIndex: 9})
	require.Equal(t, apierr.ReasonOverloaded, apierr.ReasonOf(err))
	close(leave)
	for _, s := range open {
		_, err := s.Recv()
		require.NoError(t, err)
		_, err = s.Recv()
		require.ErrorIs(t, err, io.EOF)
	}
	_, err = peer.FetchCheckpoint(ctxOf(t), &nodev1.FetchCheckpointRequest{MaxIndex: 9})
	require.NoError(t, err)
}

func TestFetchCheckpoint(t *testing.T) {
	r := start(t)
	r.node.ckpt = replica.Checkpoint{Index: 7, Term: 2, Next: 30, Bytes: 400, Config: []byte("c"), ConfigIndex: 1, State: bytes.Repeat([]byte("s"), 4<<20)}
	resp, err := r.peer("n2").FetchCheckpoint(ctxOf(t), &nodev1.FetchCheckpointRequest{MaxIndex: 6})
	require.NoError(t, err)
	require.Zero(t, resp.Index)
	large := grpc.MaxCallRecvMsgSize(8 << 20) // a checkpoint is more than gRPC takes unasked
	resp, err = r.peer("n2").FetchCheckpoint(ctxOf(t), &nodev1.FetchCheckpointRequest{MaxIndex: 7}, large)
	require.NoError(t, err)
	require.Equal(t, []uint64{7, 2, 30, 400, 1}, []uint64{resp.Index, resp.Term, resp.NextOffset, resp.LogBytes, resp.ConfigurationIndex})
	require.Len(t, resp.State, 4<<20)
}
