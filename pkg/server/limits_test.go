package server_test

import (
	"context"
	"crypto/tls"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/internal/http2test"
	"github.com/logd-io/logd/pkg/internal/testutil"
	"github.com/logd-io/logd/pkg/server"
	"github.com/logd-io/logd/pkg/tlsconf"
)

// rawConn is a connection of a client that no gRPC library made.
func (r *rig) rawConn() *http2test.Conn {
	r.t.Helper()
	conf := r.ca.Source(r.t, tlsconf.RoleClient, "app").Client(tlsconf.ALPNgRPC, tlsconf.RoleStorage, "n1")
	conn, err := (&tls.Dialer{Config: conf}).DialContext(r.t.Context(), "tcp", r.addr)
	require.NoError(r.t, err)
	c := http2test.Over(r.t, conn, testBound)
	c.Hello()
	return c
}

func TestMessagesAreBounded(t *testing.T) {
	r := start(t)
	cc := r.dial(tlsconf.RoleProxy, "p1", grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(64<<20)))
	ctx := metadata.AppendToOutgoingContext(ctxOf(t), "logd-original-principal", "alice")
	s, err := nodev1.NewNodeClient(cc).Append(ctx)
	require.NoError(t, err)
	_ = s.Send(&nodev1.AppendRequest{Records: make([]byte, 4<<20)}) // it may end before it is all sent
	_, err = s.Recv()
	require.Equal(t, codes.ResourceExhausted, status.Code(err), "%v", err)
	require.ErrorContains(t, err, "4194304", "the limit is named")
	_, err = logv1.NewLogClient(cc).Produce(ctx, &logv1.ProduceRequest{Record: &logv1.Record{Value: make([]byte, 5<<20)}})
	require.Equal(t, codes.ResourceExhausted, status.Code(err), "%v", err)
	require.Zero(t, r.node.count())
	r.alive()
}

func TestHeadersAreBounded(t *testing.T) {
	r := start(t)
	big := strings.Repeat("x", 20<<10)
	_, err := r.client().GetOffsets(metadata.AppendToOutgoingContext(ctxOf(t), "x-big", big), &logv1.GetOffsetsRequest{})
	require.ErrorContains(t, err, "16384", "a library that asks is told the limit")

	c := r.rawConn()
	id := c.Call(logv1.Log_GetOffsets_FullMethodName, "x-a", big[:7<<10], "x-b", big[:7<<10], "x-c", big[:7<<10])
	c.Until("the refusal", func(f http2.Frame) bool {
		rst, ok := f.(*http2.RSTStreamFrame)
		return ok && rst.StreamID == id
	})
	// A block that never ends ends the connection.
	c.EndlessHeaders(id + 2)
	r.alive()
}

func TestPingsAreBounded(t *testing.T) {
	r := start(t)
	c := r.rawConn()
	c.PingsTooMuch()
	r.alive()
}

// A client that minds the limit waits for its turn; what does not mind it is refused.
func TestStreamsOfOneConnectionAreBounded(t *testing.T) {
	r := start(t, func(c *server.Config) { c.MaxConcurrentStreams = 5 })
	c := r.rawConn()
	for range 10 {
		id := c.Call(logv1.Log_ConsumeStream_FullMethodName)
		require.NoError(t, c.WriteData(id, true, []byte{0, 0, 0, 0, 0})) // a request that says nothing
	}
	refused := map[uint32]bool{}
	c.Until("the refusals", func(f http2.Frame) bool {
		if rst, ok := f.(*http2.RSTStreamFrame); ok {
			require.Equal(t, http2.ErrCodeRefusedStream, rst.ErrCode)
			refused[rst.StreamID] = true
		}
		return len(refused) == 5
	})
	testutil.Eventually(t, testBound, func() error {
		if n := r.node.waiting(); n != 5 {
			return status.Errorf(codes.Unavailable, "%d tails wait", n)
		}
		return nil
	})
	require.NoError(t, c.Close())

	client := r.client()
	ctx, cancel := context.WithCancel(ctxOf(t))
	for range 5 {
		s, err := client.ConsumeStream(ctx, &logv1.ConsumeRequest{})
		require.NoError(t, err)
		_, err = s.Header()
		require.NoError(t, err)
	}
	answered := make(chan error, 1)
	go func() {
		_, err := client.Produce(ctxOf(t), &logv1.ProduceRequest{})
		answered <- err
	}()
	select {
	case err := <-answered:
		t.Fatalf("a sixth call got in: %v", err)
	case <-time.After(50 * time.Millisecond): // nothing tells that it waits
	}
	cancel()
	require.NoError(t, <-answered)
}

// A connection ends at its age, so that a certificate that is replaced, or a node that
// is back, is looked at again; nobody's calls fail of it.
func TestConnectionsEndAtTheirAge(t *testing.T) {
	r := start(t, func(c *server.Config) { c.ConnectionAge = 200 * time.Millisecond })
	c := r.rawConn()
	c.GoesAway(http2.ErrCodeNo)
	client := r.client()
	for begin := time.Now(); time.Since(begin) < time.Second; {
		_, err := client.Produce(ctxOf(t), &logv1.ProduceRequest{})
		require.NoError(t, err)
	}
}
