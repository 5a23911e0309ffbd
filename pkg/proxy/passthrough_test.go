package proxy_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/internal/testutil"
	"github.com/logd-io/logd/pkg/tlsconf/tlstest"
)

var bidi = &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}

func through(t *testing.T) (*node, *running, *grpc.ClientConn) {
	t.Helper()
	ca := tlstest.NewCA(t, cluster)
	n := startNode(t, ca)
	r := run(t, conf(t, ca, n))
	r.isReady(t)
	return n, r, dial(t, r.Addr(), nil)
}

func TestAnUnknownUnaryMethodReachesTheLeader(t *testing.T) {
	n, _, cc := through(t)
	ctx := metadata.AppendToOutgoingContext(testutil.Context(t, bound), "mine", "kept", "mine-bin", "\x00\xff",
		"logd-original-principal", "root", "logd-original-principal", "admin")
	var header, trailer metadata.MD
	var out wrapperspb.StringValue
	require.NoError(t, cc.Invoke(ctx, "/test.Other/Echo", text("hello"), &out, grpc.Header(&header), grpc.Trailer(&trailer)))
	require.Equal(t, "hello", out.Value)
	require.Equal(t, []string{"header"}, header["said-first"])
	require.Equal(t, []string{"trailer"}, trailer["said-at-the-end"])

	got := n.came(t)
	require.Equal(t, "/test.Other/Echo", got.method)
	require.Equal(t, []string{"kept"}, got.md["mine"])
	require.Equal(t, []string{"\x00\xff"}, got.md["mine-bin"])
	require.Equal(t, []string{"px"}, got.md["logd-original-principal"], "the client cannot say whose call it is")
	want, _ := ctx.Deadline()
	deadline, ok := got.ctx.Deadline()
	require.True(t, ok)
	require.WithinDuration(t, want, deadline, 10*time.Second)
}

// What only a proxy may say, and what is about one hop, does not get through; the
// node's own such keys do not come back.
func TestMetadataThatStaysHere(t *testing.T) {
	n, _, cc := through(t)
	ctx := metadata.AppendToOutgoingContext(testutil.Context(t, bound),
		"logd-anything-new", "x", "logd-cluster", "x", "logd-original-principal-bin", "x", "proxy-authorization", "x", "keep-alive", "x",
		"grpc-accept-encoding", "mine", "logd-request-id", "id", "logd-session", "s", "logd-routing-key", "r", "logd-position", "p",
		"authorization", "kept", "grpc-trace-bin", "kept")
	var out wrapperspb.StringValue
	require.NoError(t, cc.Invoke(ctx, "/test.Other/Echo", text(""), &out))
	got := n.came(t).md
	for _, key := range []string{"logd-anything-new", "logd-original-principal-bin", "proxy-authorization", "keep-alive"} {
		require.NotContains(t, got, key)
	}
	for key, want := range map[string]string{
		"logd-request-id": "id", "logd-session": "s", "logd-routing-key": "r", "logd-position": "p",
		"authorization": "kept", "grpc-trace-bin": "kept", "logd-original-principal": "px", "logd-cluster": uuid,
	} {
		require.Equal(t, []string{want}, got[key], key)
	}
	require.NotContains(t, strings.Join(got["grpc-accept-encoding"], ","), "mine", "what one hop can unpack says nothing of the next")

	var header, trailer metadata.MD
	require.NoError(t, cc.Invoke(ctx, "/test.Play/Hops", text(""), &out, grpc.Header(&header), grpc.Trailer(&trailer)))
	for _, md := range []metadata.MD{header, trailer} {
		require.Equal(t, []string{"kept"}, md["x-mine"])
		require.NotContains(t, md, "proxy-authenticate")
		require.NotContains(t, md, "logd-original-principal")
	}
}

// A node percent-decodes the name, so a name with a percent sign must not reach it
// as it is: it would be read as another client's.
func TestANameIsNotReadAsAnother(t *testing.T) {
	ca := tlstest.NewCA(t, cluster)
	n := startNode(t, ca)
	c := conf(t, ca, n)
	c.Principal = "%72oot"
	r := run(t, c)
	r.isReady(t)
	var out wrapperspb.StringValue
	require.NoError(t, dial(t, r.Addr(), nil).Invoke(testutil.Context(t, bound), "/test.Other/Echo", text("hello"), &out))
	require.Equal(t, []string{"%2572oot"}, n.came(t).md["logd-original-principal"])
}

func TestAnUnknownStreamReachesTheLeader(t *testing.T) {
	_, _, cc := through(t)
	s, err := cc.NewStream(testutil.Context(t, bound), bidi, "/test.Other/EchoAll")
	require.NoError(t, err)
	for _, word := range []string{"one", "", "three"} {
		require.NoError(t, s.SendMsg(text(word)))
		var out wrapperspb.StringValue
		require.NoError(t, s.RecvMsg(&out))
		require.Equal(t, word, out.Value)
	}
	header, err := s.Header()
	require.NoError(t, err)
	require.Equal(t, []string{"header"}, header["said-first"])
	require.NoError(t, s.CloseSend())
	require.ErrorContains(t, s.RecvMsg(text("")), "EOF")
	require.Equal(t, []string{"trailer"}, s.Trailer()["said-at-the-end"])
}

func TestTheStatusOfTheLeaderComesBack(t *testing.T) {
	_, _, cc := through(t)
	ctx := testutil.Context(t, bound)
	var out wrapperspb.StringValue
	var trailer metadata.MD
	err := cc.Invoke(ctx, "/test.Other/Nope", text(""), &out, grpc.Trailer(&trailer))
	require.Equal(t, codes.Unimplemented, status.Code(err))
	require.ErrorContains(t, err, "the node does not know /test.Other/Nope")
	require.Equal(t, []string{"trailer"}, trailer["said-at-the-end"])

	// A method of log.v1 that is newer than the proxy is the node's affair too.
	err = cc.Invoke(ctx, "/log.v1.Log/Newer", text(""), &out)
	require.ErrorContains(t, err, "the node does not know /log.v1.Log/Newer")

	s, err := cc.NewStream(ctx, bidi, "/test.Other/EchoAndFail")
	require.NoError(t, err)
	require.NoError(t, s.SendMsg(text("x")))
	require.NoError(t, s.RecvMsg(&out))
	err = s.RecvMsg(&out)
	require.Equal(t, codes.Aborted, status.Code(err))
	require.ErrorContains(t, err, "as asked")
}

func TestCancellationReachesTheLeader(t *testing.T) {
	n, _, cc := through(t)
	ctx, cancel := context.WithCancel(testutil.Context(t, bound))
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		var out wrapperspb.StringValue
		ended <- cc.Invoke(ctx, "/test.Other/Slow", text(""), &out)
	}()
	got := n.came(t)
	require.NoError(t, got.ctx.Err())
	cancel()
	require.Equal(t, codes.Canceled, status.Code(<-ended))
	select {
	case <-got.ctx.Done():
	case <-time.After(bound):
		t.Fatal("the node was not told")
	}
}

func TestDeadlineReachesTheLeader(t *testing.T) {
	n, _, cc := through(t)
	// On a machine that is busy a deadline may pass before the call has come to the node.
	for patience := 300 * time.Millisecond; len(n.calls) == 0; patience *= 2 {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		var out wrapperspb.StringValue
		err := cc.Invoke(ctx, "/test.Other/Slow", text(""), &out)
		cancel()
		require.Equal(t, codes.DeadlineExceeded, status.Code(err))
	}
	select {
	case <-n.came(t).ctx.Done():
	case <-time.After(bound):
		t.Fatal("the node was not told")
	}
}

func TestWhatNeverPassesThrough(t *testing.T) {
	n, _, cc := through(t)
	for method, want := range map[string]codes.Code{
		nodev1.Node_Append_FullMethodName:             codes.PermissionDenied,
		nodev1.Node_Join_FullMethodName:               codes.PermissionDenied,
		nodev1.Node_RemovePeer_FullMethodName:         codes.PermissionDenied,
		nodev1.Node_TransferLeadership_FullMethodName: codes.PermissionDenied,
		"/node.v2.Node/Append":                        codes.PermissionDenied,
		"//node.v1.Node/Append":                       codes.Unimplemented,
		"/x/node.v1.Node/Append":                      codes.Unimplemented,
		"/%6eode.v1.Node/Append":                      codes.Unimplemented,
		"/grpc.health.v1.Health/Newer":                codes.Unimplemented,
		"/grpc.health.v2.Health/Check":                codes.Unimplemented,
		"/grpc.reflection.v1.ServerReflection/Newer":  codes.Unimplemented,
		"/grpc.channelz.v1.Channelz/GetServers":       codes.Unimplemented,
	} {
		for _, as := range []string{"", "root"} {
			ctx := testutil.Context(t, bound)
			if as != "" {
				ctx = metadata.AppendToOutgoingContext(ctx, "logd-original-principal", as)
			}
			var out wrapperspb.StringValue
			err := cc.Invoke(ctx, method, text(""), &out)
			require.Equal(t, want, status.Code(err), "%s: %v", method, err)
		}
	}
	require.Empty(t, n.calls)
}

func TestAPassedThroughCallWaitsForALeader(t *testing.T) {
	ca := tlstest.NewCA(t, cluster)
	n := startNode(t, ca)
	n.leads("")
	r := run(t, conf(t, ca, n))
	r.isReady(t) // it can be read from
	cc := dial(t, r.Addr(), nil)
	ended := make(chan error, 1)
	go func() {
		var out wrapperspb.StringValue
		ended <- cc.Invoke(testutil.Context(t, bound), "/test.Other/Echo", text(""), &out)
	}()
	n.leads(n.id)
	require.NoError(t, <-ended)
}

func TestAPassedThroughCallDoesNotWaitForEver(t *testing.T) {
	ca := tlstest.NewCA(t, cluster)
	n := startNode(t, ca)
	n.leads("")
	c := conf(t, ca, n)
	c.Produce.HoldTimeout = 10 * time.Millisecond
	r := run(t, c)
	var out wrapperspb.StringValue
	err := dial(t, r.Addr(), nil).Invoke(testutil.Context(t, bound), "/test.Other/Echo", text(""), &out)
	require.Equal(t, apierr.ReasonNotSent, apierr.ReasonOf(err))
	require.Equal(t, codes.Unavailable, status.Code(err))
}
