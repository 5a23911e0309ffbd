package server_test

import (
	"context"
	"errors"
	"io"
	"math"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/replica"
	"github.com/logd-io/logd/pkg/server"
)

// batch is an AppendRequest of one record a value.
func batch(seq uint64, values ...string) *nodev1.AppendRequest {
	var recs []byte
	for _, v := range values {
		recs = protowire.AppendBytes(recs, record(v))
	}
	return &nodev1.AppendRequest{
		ProducerId: []byte("0123456789abcdef"), Epoch: 3, FirstSequence: seq, Count: uint32(len(values)), Records: recs,
	}
}

type appendClient = grpc.BidiStreamingClient[nodev1.AppendRequest, nodev1.AppendResponse]

func (r *rig) append() appendClient {
	stream, err := r.proxy().Append(ctxOf(r.t))
	require.NoError(r.t, err)
	return stream
}

func TestAppendIsPipelinedAndAcknowledgedInOrder(t *testing.T) {
	r := start(t)
	r.hold()
	stream := r.append()
	_, err := stream.Header()
	require.NoError(t, err, "headers come before the first batch")
	for i := range 5 {
		require.NoError(t, stream.Send(batch(uint64(2*i), "a", "b")))
	}
	var arrived []*pending
	for i := range 5 { // all five are submitted while none is acknowledged
		p := <-r.arrived
		arrived = append(arrived, p)
		require.Equal(t, uint64(2*i), p.batch.FirstSeq)
		require.Equal(t, uint32(2), p.batch.Count)
		require.Equal(t, uint32(3), p.batch.Epoch)
		require.Equal(t, "0123456789abcdef", string(p.batch.Producer[:]))
		require.Equal(t, batch(0, "a", "b").Records, p.batch.Records, "intact records are not touched")
	}
	r.settle(arrived[1], nil) // done before the first, acknowledged after it
	r.settle(arrived[0], nil)
	for i, want := range []uint64{2, 0} {
		ack, err := stream.Recv()
		require.NoError(t, err)
		require.Equal(t, uint64(2*i), ack.FirstSequence)
		require.Equal(t, want, ack.FirstOffset)
		require.Equal(t, uint32(2), ack.Count)
	}
	arrived[2].res.Duplicate = true
	r.settle(arrived[2], nil)
	_, err = stream.Recv()
	require.NoError(t, err)
	for _, p := range arrived[3:] {
		r.settle(p, nil)
	}
	require.NoError(t, stream.CloseSend())
	for range 2 {
		_, err = stream.Recv()
		require.NoError(t, err)
	}
	_, err = stream.Recv()
	require.ErrorIs(t, err, io.EOF)
}

func TestAppendEndsWithTheFirstRefusal(t *testing.T) {
	for name, tc := range map[string]struct {
		err    error
		reason apierr.Reason
	}{
		"gap":              {&replica.GapError{Want: 4, Got: 9}, apierr.ReasonSequenceGap},
		"fenced":           {&replica.FencedError{Epoch: 8}, apierr.ReasonFenced},
		"unknown producer": {&replica.UnknownProducerError{}, apierr.ReasonUnknownProducer},
		"leadership lost":  {replica.ErrOutcomeUnknown, apierr.ReasonOutcomeUnknown},
		"not proposed":     {replica.ErrDraining, apierr.ReasonDraining},
		// Whatever else goes wrong, the batch may have been appended.
		"closed":        {replica.ErrClosed, apierr.ReasonOutcomeUnknown},
		"a fatal fault": {&replica.FatalError{Err: errors.New("disk")}, apierr.ReasonOutcomeUnknown},
		"anything":      {errors.New("surprise"), apierr.ReasonOutcomeUnknown},
	} {
		t.Run("when settled: "+name, func(t *testing.T) {
			r := start(t)
			r.hold()
			stream := r.append()
			for i := range 4 {
				require.NoError(t, stream.Send(batch(uint64(i), "x")))
			}
			first, second, third := <-r.arrived, <-r.arrived, <-r.arrived
			r.settle(third, nil) // behind the refused one: never acknowledged
			r.settle(second, tc.err)
			r.settle(first, nil)
			ack, err := stream.Recv()
			require.NoError(t, err, "the batch before the refused one is acknowledged")
			require.Equal(t, uint64(0), ack.FirstSequence)
			_, err = stream.Recv()
			require.Equal(t, tc.reason, apierr.ReasonOf(err), "%v", err)
		})
	}
	for name, tc := range map[string]struct {
		err  error
		want error
	}{
		"not leader": {&replica.NotLeaderError{LeaderID: otherID, Term: 9}, apierr.NotLeader{Leader: otherID, Address: "two:2", Term: 9}},
		"draining":   {replica.ErrDraining, apierr.Draining{}},
		"disk low": {
			&replica.DiskLowError{Low: []string{"b.00000002"}, Silent: []string{"c.00000003"}, RetryAfter: 1e9},
			apierr.Overloaded{RetryAfter: 1e9, Why: "disk below its reserve on b.00000002, and no answer from c.00000003: free space in data_dir there, or keep less (retention, log.reserve)"},
		},
		"overloaded": {&replica.OverloadedError{RetryAfter: 2e9}, apierr.Overloaded{RetryAfter: 2e9}},
		"invalid":    {&replica.InvalidError{Field: "count", Reason: "odd"}, apierr.Invalid{Field: "count", Why: "odd"}},
	} {
		t.Run("when submitted: "+name, func(t *testing.T) {
			r := start(t)
			r.hold()
			r.refuseWith(func(b replica.Batch) error {
				if b.FirstSeq >= 1 {
					return tc.err
				}
				return nil
			})
			stream := r.append()
			for i := range 3 {
				require.NoError(t, stream.Send(batch(uint64(i), "x")))
			}
			r.settle(<-r.arrived, nil)
			_, err := stream.Recv()
			require.NoError(t, err, "what was accepted before is acknowledged before the refusal")
			_, err = stream.Recv()
			info, ok := apierr.From(err)
			require.True(t, ok, "%v", err)
			require.Equal(t, tc.want, info.Err())
			require.Equal(t, 1, r.count(), "a batch behind a refused one was submitted")
		})
	}
}

func TestAppendRefusesWhatIsMalformed(t *testing.T) {
	r := start(t)
	for name, tc := range map[string]struct {
		change func(*nodev1.AppendRequest)
		field  string
	}{
		"no records":                {func(b *nodev1.AppendRequest) { b.Count, b.Records = 0, nil }, "count"},
		"count too high":            {func(b *nodev1.AppendRequest) { b.Count = 3 }, "records[2]"},
		"count absurd":              {func(b *nodev1.AppendRequest) { b.Count = 1<<32 - 1 }, "records[2]"},
		"count too low":             {func(b *nodev1.AppendRequest) { b.Count = 1 }, "records"},
		"short producer id":         {func(b *nodev1.AppendRequest) { b.ProducerId = []byte("short") }, "producer_id"},
		"zero producer id":          {func(b *nodev1.AppendRequest) { b.ProducerId = make([]byte, 16) }, "producer_id"},
		"short request key":         {func(b *nodev1.AppendRequest) { b.RequestKey = []byte("short") }, "request_key"},
		"a key for two":             {func(b *nodev1.AppendRequest) { b.RequestKey = []byte("0123456789abcdef") }, "request_key"},
		"sequence at its end":       {func(b *nodev1.AppendRequest) { b.FirstSequence = 1<<64 - 1 }, "first_sequence"},
		"second record is garbage":  {func(b *nodev1.AppendRequest) { b.Records[len(b.Records)-2] = 0xff }, "records[1]"},
		"length beyond the message": {func(b *nodev1.AppendRequest) { b.Records[0] = 0x7f }, "records[0]"},
	} {
		t.Run(name, func(t *testing.T) {
			req := batch(0, "a", "b")
			tc.change(req)
			stream := r.append()
			require.NoError(t, stream.Send(req))
			_, err := stream.Recv()
			info, _ := apierr.From(err)
			require.Equal(t, apierr.ReasonInvalid, info.Reason, "%v", err)
			require.Equal(t, tc.field, info.Metadata[apierr.KeyField], "%v", err)
			require.Zero(t, r.count())
		})
	}
}

func TestAppendBoundsWhatIsInFlight(t *testing.T) {
	r := start(t)
	r.hold()
	stream := r.append()
	sent := make(chan error, 1)
	const many = 200
	go func() {
		for i := range many {
			if err := stream.Send(batch(uint64(i), "x")); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	var held []*pending
	for range 16 {
		held = append(held, <-r.arrived)
	}
	require.NoError(t, <-sent) // small ones fit the transport; the server took no more
	require.Equal(t, 16, r.count())
	for i := range many {
		r.settle(held[0], nil)
		held = held[1:]
		ack, err := stream.Recv()
		require.NoError(t, err)
		require.Equal(t, uint64(i), ack.FirstSequence)
		if r.count() < many || len(held) == 0 && i+1 < many {
			held = append(held, <-r.arrived)
		}
		require.LessOrEqual(t, len(held), 16)
		if len(held) < 16 && i+1+len(held) < many {
			held = append(held, <-r.arrived)
		}
	}
}

// Large records wait for each other, where many of them would be more than the node
// has in flight for everybody.
func TestProduceStreamBoundsItsBytes(t *testing.T) {
	r := start(t)
	r.hold()
	stream, err := r.client().ProduceStream(ctxOf(t))
	require.NoError(t, err)
	const many, fit = 20, 4 // of 2 MiB
	sent := make(chan error, 1)
	go func() {
		req := &logv1.ProduceRequest{Record: &logv1.Record{Value: make([]byte, 500<<10)}}
		for range many {
			if err := stream.Send(req); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	var held []*pending
	for range fit {
		held = append(held, <-r.arrived)
	}
	for i := range many {
		require.LessOrEqual(t, r.count(), i+fit)
		r.settle(held[0], nil)
		held = held[1:]
		resp, err := stream.Recv()
		require.NoError(t, err)
		require.Equal(t, uint64(i), resp.Offset)
		if i+fit < many {
			held = append(held, <-r.arrived)
		}
	}
	require.NoError(t, <-sent)
}

// A stream's window takes room when it is used: there may be thousands that are idle.
func TestAnIdleProduceStreamIsSmall(t *testing.T) {
	const streams = 100
	least := uint64(math.MaxUint64) // of several tries: what others allocate counts too
	for range 5 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range streams {
			_ = server.NewProduceStream()
		}
		runtime.ReadMemStats(&after)
		least = min(least, (after.TotalAlloc-before.TotalAlloc)/streams)
	}
	require.Less(t, least, uint64(2<<10))
}

func TestProduceStreamFailsFromTheFirstFailureOn(t *testing.T) {
	r := start(t)
	r.hold()
	stream, err := r.client().ProduceStream(ctxOf(t))
	require.NoError(t, err)
	for range 3 {
		require.NoError(t, stream.Send(&logv1.ProduceRequest{Record: &logv1.Record{Value: []byte("v")}}))
	}
	a, b, c := <-r.arrived, <-r.arrived, <-r.arrived
	r.settle(a, nil)
	r.settle(c, nil)
	r.settle(b, replica.ErrOutcomeUnknown)
	resp, err := stream.Recv()
	require.NoError(t, err)
	require.Zero(t, resp.Offset)
	_, err = stream.Recv()
	require.Equal(t, apierr.ReasonOutcomeUnknown, apierr.ReasonOf(err))
}

func TestProduceRefusals(t *testing.T) {
	for name, tc := range map[string]struct{ err, want error }{
		"not leader, none known": {&replica.NotLeaderError{Term: 2}, apierr.NotLeader{Term: 2}},
		"unexpected":             {errors.New("secret path"), nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t)
			r.refuseWith(func(replica.Batch) error { return tc.err })
			_, err := r.client().Produce(ctxOf(t), &logv1.ProduceRequest{})
			info, _ := apierr.From(err)
			if tc.want == nil {
				require.Empty(t, info.Reason)
				require.NotContains(t, info.Message, "secret")
				return
			}
			require.Equal(t, tc.want, info.Err())
		})
	}
}

func TestClientThatLeavesAppendLeavesNothingBehind(t *testing.T) {
	r := start(t)
	r.hold()
	ctx, cancel := context.WithCancel(ctxOf(t))
	stream, err := r.proxy().Append(ctx)
	require.NoError(t, err)
	require.NoError(t, stream.Send(batch(0, "x")))
	<-r.arrived
	cancel()
	r.end() // waits for every goroutine of the stream; goleak looks too
}

func TestNothingIsSubmittedBehindTheEndOfAStream(t *testing.T) {
	require.Zero(t, server.TakenAfterEnd(3))
}
