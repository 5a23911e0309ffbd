package proxy_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/status"
)

// situation is a row of the table: what is done, and what must be seen of it,
// straight and through the proxy.
type situation struct {
	name string
	md   func(context.Context) context.Context
	do   func(context.Context, *grpc.ClientConn) outcome
	ok   func(*testing.T, *node, outcome)

	refused bool // by whoever is in front: the node's trailer is no part of it
}

func situations() []situation {
	all := []situation{
		{
			name: "metadata and messages both ways",
			md: with("x-one", "1", "x-two", "a", "x-two", "b", "x-empty", "", "x-raw-bin", "\x00\xff\x80",
				"x-long", strings.Repeat("y", 8<<10)),
			do: exchange("/test.Play/Echo", texts("one", "", "three")),
			ok: func(t *testing.T, _ *node, o outcome) {
				require.Equal(t, []string{"one", "", "three"}, o.Got)
				require.Equal(t, []string{"a", "b"}, o.Header["x-two"])
				require.Equal(t, []string{"\x00\xff\x80"}, o.Header["x-raw-bin"])
				require.Equal(t, []string{""}, o.Header["x-empty"])
				require.Len(t, o.Header["x-long"][0], 8<<10)
				require.Equal(t, []string{"a", "b"}, o.Trailer["t-two"])
				require.Equal(t, []string{"\x00\x01\xfe\xff"}, o.Trailer["t-raw-bin"])
			},
		},
		{
			name: "the header comes when it is sent",
			do: func(ctx context.Context, cc *grpc.ClientConn) (o outcome) {
				s, err := cc.NewStream(ctx, bidi, "/test.Play/HeaderFirst")
				if err != nil {
					o.ends(nil, err)
					return o
				}
				// Nothing is sent before it is there, so nothing comes before it.
				if md, err := s.Header(); err != nil || md["early"] == nil {
					o.ends(s, fmt.Errorf("no early header: %v, %w", md, err))
					return o
				}
				_ = s.SendMsg(text("now"))
				_ = s.CloseSend()
				o.takes(s)
				return o
			},
			ok: func(t *testing.T, _ *node, o outcome) {
				require.Equal(t, []string{"now"}, o.Got)
				require.Equal(t, []string{"\x00"}, o.Header["early-bin"])
			},
		},
		{
			name: "a header and an error, no message",
			do:   exchange("/test.Play/HeaderOnly", nil),
			ok: func(t *testing.T, _ *node, o outcome) {
				require.Equal(t, codes.NotFound, o.Code)
				require.Equal(t, []string{"yes"}, o.Header["early"])
				require.Equal(t, []string{"yes"}, o.Trailer["late"])
			},
		},
		{
			name: "the client half-closes",
			do:   exchange("/test.Play/Count", texts(make([]string, 500)...)),
			ok:   func(t *testing.T, _ *node, o outcome) { require.Equal(t, []string{"500"}, o.Got) },
		},
		{
			name: "the node goes on after the half is closed",
			do:   exchange("/test.Play/After", texts("x")),
			ok: func(t *testing.T, _ *node, o outcome) {
				require.Len(t, o.Got, 100)
				require.Equal(t, codes.Aborted, o.Code)
			},
		},
		{
			name: "the node ends first",
			do: func(ctx context.Context, cc *grpc.ClientConn) (o outcome) {
				s, err := cc.NewStream(ctx, bidi, "/test.Play/Enough")
				if err != nil {
					o.ends(nil, err)
					return o
				}
				for s.SendMsg(text("more")) == nil { // until it has ended
				}
				o.takes(s)
				return o
			},
			ok: func(t *testing.T, _ *node, o outcome) {
				require.Equal(t, codes.OK, o.Code)
				require.Equal(t, []string{"enough"}, o.Got)
			},
		},
		{
			name: "the largest message",
			do:   exchange("/test.Play/Echo", texts(strings.Repeat("x", mostBytes-16))),
			ok: func(t *testing.T, _ *node, o outcome) {
				require.Equal(t, []string{fmt.Sprintf("%d bytes", mostBytes-16)}, o.Got)
			},
		},
		{
			name: "a message that is too large", refused: true,
			do: exchange("/test.Play/Echo", texts(strings.Repeat("x", mostBytes+1))),
			ok: func(t *testing.T, _ *node, o outcome) {
				require.Equal(t, codes.ResourceExhausted, o.Code)
				require.Contains(t, o.Message, fmt.Sprint(mostBytes))
			},
		},
		{
			name: "an answer larger than what clients may send",
			do:   exchange("/test.Play/Big", texts("3000000")),
			ok:   func(t *testing.T, _ *node, o outcome) { require.Equal(t, []string{"3000000 bytes"}, o.Got) },
		},
		{
			name: "an answer larger than the client takes",
			do:   exchange("/test.Play/Big", texts("5000000")),
			ok:   func(t *testing.T, _ *node, o outcome) { require.Equal(t, codes.ResourceExhausted, o.Code) },
		},
		{
			name: "gzip",
			do:   exchange("/test.Play/Echo", texts(strings.Repeat("z", 10_000), "small"), grpc.UseCompressor(gzip.Name)),
			ok: func(t *testing.T, _ *node, o outcome) {
				require.Equal(t, []string{"10000 bytes", "small"}, o.Got)
				require.Equal(t, gzip.Name, o.Compressed)
			},
		},
		{
			name: "gzip that unpacks to too much", refused: true,
			do: exchange("/test.Play/Echo", texts(strings.Repeat("z", 3<<20)), grpc.UseCompressor(gzip.Name)),
			ok: func(t *testing.T, _ *node, o outcome) { require.Equal(t, codes.ResourceExhausted, o.Code) },
		},
		{
			name: "the client cancels",
			do: func(ctx context.Context, cc *grpc.ClientConn) (o outcome) {
				ctx, cancel := context.WithCancel(ctx)
				defer cancel()
				s, err := cc.NewStream(ctx, bidi, "/test.Play/Wait")
				if err == nil {
					_, err = s.Header() // the node has the call
				}
				if err != nil {
					o.ends(nil, err)
					return o
				}
				cancel()
				o.takes(s)
				return o
			},
			ok: func(t *testing.T, n *node, o outcome) {
				require.Equal(t, codes.Canceled, o.Code)
				require.ErrorIs(t, n.heard(t), context.Canceled)
			},
		},
		{
			name: "the client's deadline passes",
			do: func(ctx context.Context, cc *grpc.ClientConn) (o outcome) {
				// On a machine that is busy it may pass before the node has the call.
				for patience := 300 * time.Millisecond; ; patience *= 2 {
					ctx, cancel := context.WithTimeout(ctx, patience)
					defer cancel()
					s, err := cc.NewStream(ctx, bidi, "/test.Play/Wait")
					if status.Code(err) == codes.DeadlineExceeded {
						continue
					}
					if err != nil {
						o.ends(nil, err)
						return o
					}
					if md, _ := s.Header(); md == nil {
						continue
					}
					o.takes(s)
					o.Header, o.Message = nil, "" // who says so differs
					return o
				}
			},
			ok: func(t *testing.T, n *node, o outcome) {
				require.Equal(t, codes.DeadlineExceeded, o.Code)
				require.Error(t, n.heard(t))
			},
		},
		{
			name: "the node knows the deadline",
			do: func(ctx context.Context, cc *grpc.ClientConn) outcome {
				ctx, cancel := context.WithTimeout(ctx, 5*time.Hour)
				defer cancel()
				return exchange("/test.Play/Deadline", nil)(ctx, cc)
			},
			ok: func(t *testing.T, _ *node, o outcome) { require.Equal(t, []string{"5"}, o.Got) },
		},
		{
			name: "there is no deadline",
			do:   exchange("/test.Play/Deadline", nil),
			ok:   func(t *testing.T, _ *node, o outcome) { require.Equal(t, []string{"none"}, o.Got) },
		},
		{
			name: "a method nobody knows",
			do:   exchange("/test.Play/Nope", nil),
			ok: func(t *testing.T, n *node, o outcome) {
				require.Equal(t, codes.Unimplemented, o.Code)
				require.Equal(t, "/test.Play/Nope", n.came(t).method)
			},
		},
		{
			name: "bytes that are no protobuf", refused: true,
			do: func(ctx context.Context, cc *grpc.ClientConn) outcome {
				o := exchange("/test.Play/Echo", texts(""), grpc.ForceCodecV2(broken{}))(ctx, cc)
				o.Message = "" // a parser's words
				return o
			},
			ok: func(t *testing.T, _ *node, o outcome) { require.Equal(t, codes.Internal, o.Code) },
		},
	}
	for c := codes.Canceled; c <= codes.Unauthenticated; c++ {
		all = append(all, situation{
			name: "trailers only: " + c.String(), md: with("x-code", fmt.Sprint(uint32(c))),
			do: exchange("/test.Play/Fail", nil),
			ok: func(t *testing.T, _ *node, o outcome) {
				require.Equal(t, c, o.Code)
				require.Nil(t, o.Header, "an answer of trailers only stays one")
				require.Equal(t, []string{"yes"}, o.Trailer["late"])
				require.Equal(t, []string{"7"}, o.Trailer["grpc-retry-pushback-ms"])
				require.Equal(t, "100% \u00fcber\nnext", o.Message)
				require.Len(t, o.Details, 2)
			},
		})
	}
	return all
}
