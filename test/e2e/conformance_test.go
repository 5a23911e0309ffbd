package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/apierr"
)

// seen is what a client sees of a situation: codes, reasons, what came.
type seen []string

func (s *seen) add(format string, args ...any) { *s = append(*s, fmt.Sprintf(format, args...)) }

func (s *seen) end(err error) {
	switch {
	case err == nil:
		s.add("no error")
	case errors.Is(err, io.EOF):
		s.add("end")
	default:
		info, _ := apierr.From(err)
		s.add("%s %s, %d details", status.Code(err), info.Reason, len(status.Convert(err).Details()))
	}
}

// nonsense is protobuf that writes none.
type nonsense struct{}

func (nonsense) Name() string { return "proto" }
func (nonsense) Marshal(any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer{0xff, 0xff}}, nil
}
func (nonsense) Unmarshal(b mem.BufferSlice, v any) error {
	return encoding.GetCodecV2("proto").Unmarshal(b, v)
}

// What the proxy serves itself is to a client what the leader makes of it. Each
// situation is played straight at the leader and through the proxy.
func TestServedIsAsDirect(t *testing.T) {
	w := start(t)
	ways := []struct {
		name string
		conn *grpc.ClientConn
	}{
		{"straight to the leader", w.dial("client", w.leader())},
		{"through the proxy", w.naive()},
	}
	record := func(value string) *logv1.ProduceRequest {
		return &logv1.ProduceRequest{Record: &logv1.Record{Value: []byte(value)}}
	}
	for _, s := range []struct {
		name string
		want seen
		do   func(context.Context, logv1.LogClient, *grpc.ClientConn, *seen)
	}{
		{
			name: "a record with everything", want: seen{"it came back", "again"},
			do: func(ctx context.Context, c logv1.LogClient, _ *grpc.ClientConn, s *seen) {
				in := &logv1.Record{Value: []byte("v\x00\xff"), Key: []byte("k"), Timestamp: 17,
					Headers: []*logv1.Header{{Key: "h", Value: []byte{0}}, {Key: "h"}}}
				for _, word := range []string{"it came back", "again"} {
					at, err := c.Produce(ctx, &logv1.ProduceRequest{Record: in})
					require.NoError(t, err)
					out, err := c.Consume(ctx, &logv1.ConsumeRequest{Offset: at.GetOffset(), Linearizable: true})
					require.NoError(t, err)
					want := proto.CloneOf(in)
					want.Offset = at.GetOffset()
					require.True(t, proto.Equal(want, out.GetRecord()), "%v", out)
					s.add("%s", word)
				}
			},
		},
		{
			name: "gzip", want: seen{"10000 bytes"},
			do: func(ctx context.Context, c logv1.LogClient, _ *grpc.ClientConn, s *seen) {
				zip := grpc.UseCompressor(gzip.Name)
				at, err := c.Produce(ctx, record(strings.Repeat("z", 10_000)), zip)
				require.NoError(t, err)
				out, err := c.Consume(ctx, &logv1.ConsumeRequest{Offset: at.GetOffset()}, zip)
				require.NoError(t, err)
				s.add("%d bytes", len(out.GetRecord().GetValue()))
			},
		},
		{
			name: "a stream of records", want: seen{"100 in order", "end"},
			do: func(ctx context.Context, c logv1.LogClient, _ *grpc.ClientConn, s *seen) {
				p, err := c.ProduceStream(ctx)
				require.NoError(t, err)
				for i := range 100 {
					require.NoError(t, p.Send(record(fmt.Sprint(i))))
				}
				require.NoError(t, p.CloseSend())
				first, err := p.Recv()
				require.NoError(t, err)
				n := uint64(1)
				for ; n < 100; n++ {
					next, err := p.Recv()
					require.NoError(t, err)
					require.Equal(t, first.GetOffset()+n, next.GetOffset())
				}
				s.add("%d in order", n)
				_, err = p.Recv()
				s.end(err)
			},
		},
		{
			name: "a stream that is closed at once", want: seen{"end"},
			do: func(ctx context.Context, c logv1.LogClient, _ *grpc.ClientConn, s *seen) {
				p, err := c.ProduceStream(ctx)
				require.NoError(t, err)
				require.NoError(t, p.CloseSend())
				_, err = p.Recv()
				s.end(err)
			},
		},
		{
			name: "an idle tail has headers, and is cancelled", want: seen{"headers", "Canceled , 0 details"},
			do: func(ctx context.Context, c logv1.LogClient, _ *grpc.ClientConn, s *seen) {
				ctx, cancel := context.WithCancel(ctx)
				defer cancel()
				tail := idleTail(t, ctx, c)
				md, err := tail.Header()
				require.NoError(t, err)
				require.NotNil(t, md)
				s.add("headers")
				cancel()
				_, err = tail.Recv()
				s.end(err)
			},
		},
		{
			name: "an idle tail's deadline", want: seen{"DeadlineExceeded , 0 details"},
			do: func(ctx context.Context, c logv1.LogClient, _ *grpc.ClientConn, s *seen) {
				ctx, cancel := context.WithTimeout(ctx, time.Second)
				defer cancel()
				_, err := idleTail(t, ctx, c).Recv()
				s.end(err)
			},
		},
		{
			name: "beyond the end", want: seen{"OutOfRange OFFSET_OUT_OF_RANGE, 2 details", "OutOfRange OFFSET_OUT_OF_RANGE, 2 details"},
			do: func(ctx context.Context, c logv1.LogClient, _ *grpc.ClientConn, s *seen) {
				_, err := c.Consume(ctx, &logv1.ConsumeRequest{Offset: 1 << 40})
				s.end(err)
				tail, err := c.ConsumeStream(ctx, &logv1.ConsumeRequest{Offset: 1 << 40})
				require.NoError(t, err)
				_, err = tail.Recv()
				s.end(err)
			},
		},
		{
			name: "too large for a record, and for a message",
			want: seen{"InvalidArgument INVALID, 1 details", "refused"},
			do: func(ctx context.Context, c logv1.LogClient, _ *grpc.ClientConn, s *seen) {
				_, err := c.Produce(ctx, record(strings.Repeat("x", 1<<20)))
				s.end(err)
				_, err = c.Produce(ctx, record(strings.Repeat("x", 2<<20)))
				// A node reads more than the proxy does before it says no.
				if code := status.Code(err); code == codes.InvalidArgument || code == codes.ResourceExhausted {
					s.add("refused")
				}
			},
		},
		{
			name: "a message that is none", want: seen{"refused"},
			do: func(ctx context.Context, c logv1.LogClient, _ *grpc.ClientConn, s *seen) {
				_, err := c.Produce(ctx, record(""), grpc.ForceCodecV2(nonsense{}))
				if code := status.Code(err); code == codes.InvalidArgument || code == codes.Internal { // by who parses it
					s.add("refused")
				}
			},
		},
		{
			name: "a method nobody knows", want: seen{"Unimplemented , 0 details"},
			do: func(ctx context.Context, _ logv1.LogClient, cc *grpc.ClientConn, s *seen) {
				s.end(cc.Invoke(ctx, "/log.v1.Log/Nope", &emptypb.Empty{}, &emptypb.Empty{}))
			},
		},
		{
			name: "offsets", want: seen{"0 is the lowest"},
			do: func(ctx context.Context, c logv1.LogClient, _ *grpc.ClientConn, s *seen) {
				off, err := c.GetOffsets(ctx, &logv1.GetOffsetsRequest{})
				require.NoError(t, err)
				s.add("%d is the lowest", off.GetLowest())
			},
		},
	} {
		for _, way := range ways {
			t.Run(s.name+", "+way.name, func(t *testing.T) {
				var got seen
				s.do(w.ctx, logv1.NewLogClient(way.conn), way.conn, &got)
				require.Equal(t, s.want, got)
			})
		}
	}
}

func idleTail(t *testing.T, ctx context.Context, c logv1.LogClient) grpc.ServerStreamingClient[logv1.ConsumeResponse] {
	off, err := c.GetOffsets(ctx, &logv1.GetOffsetsRequest{})
	require.NoError(t, err)
	tail, err := c.ConsumeStream(ctx, &logv1.ConsumeRequest{Offset: off.GetNext()})
	require.NoError(t, err)
	return tail
}
