package history_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/test/history"
)

// failing answers everything with err.
type failing struct {
	grpc.ClientConnInterface
	err error
}

func (f failing) Invoke(context.Context, string, any, any, ...grpc.CallOption) error { return f.err }

func (f failing) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return failingStream{err: f.err}, nil
}

type failingStream struct {
	grpc.ClientStream
	err error
}

func (failingStream) SendMsg(any) error   { return nil }
func (failingStream) CloseSend() error    { return nil }
func (s failingStream) RecvMsg(any) error { return s.err }

// What an error leaves known decides what the log may hold: a mistake here is a
// violation that is not seen, or one that is none.
func TestWhatErrorsLeaveKnown(t *testing.T) {
	for name, tc := range map[string]struct {
		err  error
		want history.Outcome
	}{
		"not sent":            {apierr.NotSent{}, history.Refused},
		"draining":            {apierr.Draining{}, history.Refused},
		"overloaded":          {apierr.Overloaded{}, history.Refused},
		"not leader":          {apierr.NotLeader{}, history.Refused},
		"invalid":             {apierr.Invalid{Why: "too large"}, history.Refused},
		"not allowed":         {apierr.PermissionDenied{}, history.Refused},
		"outcome unknown":     {apierr.OutcomeUnknown{}, history.Unknown},
		"deadline":            {status.Error(codes.DeadlineExceeded, "late"), history.Unknown},
		"a broken connection": {status.Error(codes.Unavailable, "gone"), history.Unknown},
		"anything":            {errors.New("boom"), history.Unknown},
		"the end of a stream": {io.EOF, history.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			r := history.NewRecorder()
			client := logv1.NewLogClient(r.Conn(failing{err: tc.err}, history.Who{Name: "client"}))
			_, err := client.Produce(t.Context(), &logv1.ProduceRequest{Record: &logv1.Record{Value: []byte("x")}})
			require.ErrorIs(t, err, tc.err)
			s, err := client.ProduceStream(t.Context())
			require.NoError(t, err)
			for range 3 {
				require.NoError(t, s.Send(&logv1.ProduceRequest{Record: &logv1.Record{Value: []byte("y")}}))
			}
			_, err = s.Recv()
			require.ErrorIs(t, err, tc.err)
			events := r.History().Events
			require.Len(t, events, 4)
			for i, want := range []history.Outcome{tc.want, tc.want, history.Unknown, history.Unknown} {
				require.Equal(t, want, events[i].Outcome, i)
				require.Equal(t, want == history.Unknown, events[i].End == history.Forever, i)
			}
		})
	}
	for name, tc := range map[string]struct {
		err  error
		want history.Event
	}{
		"out of range":     {apierr.OutOfRange{Offset: 9, Lowest: 2, Next: 7}, history.Event{Outcome: history.OutOfRange, Lowest: 2, Next: 7}},
		"position unknown": {apierr.PositionUnknown{Visible: 5}, history.Event{Outcome: history.PositionUnknown, Next: 5}},
		"behind":           {apierr.Behind{Visible: 5}, history.Event{}},
	} {
		t.Run("a read "+name, func(t *testing.T) {
			r := history.NewRecorder()
			client := logv1.NewLogClient(r.Conn(failing{err: tc.err}, history.Who{Name: "client"}))
			_, err := client.Consume(t.Context(), &logv1.ConsumeRequest{Offset: 9, Linearizable: true})
			require.ErrorIs(t, err, tc.err)
			s, err := client.ConsumeStream(t.Context(), &logv1.ConsumeRequest{Offset: 9})
			require.NoError(t, err)
			_, err = s.Recv()
			require.ErrorIs(t, err, tc.err)
			for _, e := range r.History().Events {
				require.EqualValues(t, 9, e.Asked)
				require.Equal(t, e.Op == history.Consume, e.Linear)
				require.Equal(t, tc.want, history.Event{Outcome: e.Outcome, Lowest: e.Lowest, Next: e.Next})
				require.Less(t, e.Start, e.End)
			}
		})
	}
}

// Two sends are one when principal and request id are.
func TestRequestIDs(t *testing.T) {
	r := history.NewRecorder()
	send := func(principal string, ids ...string) {
		ctx := t.Context()
		for _, id := range ids {
			ctx = metadata.AppendToOutgoingContext(ctx, "logd-request-id", id)
		}
		client := logv1.NewLogClient(r.Conn(instant{}, history.Who{Name: "client", Principal: principal}))
		_, err := client.Produce(ctx, &logv1.ProduceRequest{Record: &logv1.Record{Value: []byte("x")}})
		require.NoError(t, err)
	}
	send("a", "1")
	send("a", "1")
	send("a", "2")
	send("b", "1")
	send("a")
	e := r.History().Events
	require.NotZero(t, e[0].Key)
	require.Equal(t, e[0].Key, e[1].Key)
	require.NotEqual(t, e[0].Key, e[2].Key)
	require.NotEqual(t, e[0].Key, e[3].Key)
	require.Zero(t, e[4].Key)
}

// A sum stands for all that a client decides of a record, and for nothing else.
func TestSum(t *testing.T) {
	seen := map[uint64]int{}
	for i, rec := range []*logv1.Record{
		{Value: []byte("a")}, {Value: []byte("b")}, {Key: []byte("a")}, {Value: []byte("a"), Key: []byte("a")},
		{Headers: []*logv1.Header{{Key: "a"}}}, {Headers: []*logv1.Header{{Value: []byte("a")}}},
		{Headers: []*logv1.Header{{Key: "a"}, {Key: "b"}}}, {Headers: []*logv1.Header{{Key: "b"}, {Key: "a"}}}, {},
	} {
		was, ok := seen[history.Sum(rec)]
		require.False(t, ok, "%d and %d", was, i)
		seen[history.Sum(rec)] = i
	}
	require.Equal(t, history.Sum(&logv1.Record{Value: []byte("a")}), history.Sum(&logv1.Record{Value: []byte("a"), Offset: 7, Timestamp: 8}))
}

func TestFilesThatAreNone(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON":             "{",
		"no such operation":   `{"conn":{"name":"a"}}` + "\n" + `{"op":"delete","is":"ok"}`,
		"no such outcome":     `{"conn":{"name":"a"}}` + "\n" + `{"op":"produce","is":"well"}`,
		"nobody":              `{"op":"produce","is":"ok"}`,
		"a record of no log":  `{"rec":true,"sum":1}`,
		"a stream below zero": `{"conn":{"name":"a"}}` + "\n" + `{"op":"open","is":"ok","stream":-1}`,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := history.Read(strings.NewReader(text))
			require.ErrorContains(t, err, "line")
		})
	}
}

// A node's log has no holes.
func TestLogAdd(t *testing.T) {
	l := history.Log{Node: "a"}
	require.NoError(t, l.Add(&logv1.Record{Offset: 5}))
	require.NoError(t, l.Add(&logv1.Record{Offset: 6}))
	require.ErrorContains(t, l.Add(&logv1.Record{Offset: 8}), "7 is due")
	require.EqualValues(t, 5, l.Base)
	require.EqualValues(t, 7, l.Next())
}
