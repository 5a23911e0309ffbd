package proxy_test

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/internal/testutil"
	"github.com/logd-io/logd/pkg/tlsconf/tlstest"
)

// refuses waits until nothing listens at addr any more.
func refuses(t *testing.T, addr string) {
	t.Helper()
	testutil.Eventually(t, bound, func() error {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return nil // that is what is waited for
		}
		_ = conn.Close()
		return status.Error(codes.Unavailable, "it still listens")
	})
}

func TestDrainFinishesUnaryCalls(t *testing.T) {
	n, r, cc := through(t)
	ctx := testutil.Context(t, bound)
	ended := make(chan error, 1)
	go func() {
		var out wrapperspb.StringValue
		ended <- cc.Invoke(ctx, "/test.Other/Slow", text(""), &out)
	}()
	n.came(t)
	// Stays for ever, and must not keep the drain.
	watch, err := healthv1.NewHealthClient(cc).Watch(ctx, &healthv1.HealthCheckRequest{})
	require.NoError(t, err)
	_, err = watch.Recv()
	require.NoError(t, err)

	r.stop()
	refuses(t, r.Addr())
	code, why := get(t, r.AdminAddr(), "/readyz")
	require.Equal(t, http.StatusServiceUnavailable, code)
	require.Contains(t, why, "draining")
	select {
	case err := <-r.done:
		t.Fatalf("Run ended with a call open: %v", err)
	case err := <-ended:
		t.Fatalf("the call ended: %v", err)
	default:
	}
	begin := time.Now()
	close(n.let)
	require.NoError(t, <-ended)
	require.NoError(t, <-r.done)
	require.Less(t, time.Since(begin), bound, "the drain ended with the last call, not with its time")
	_, err = watch.Recv()
	for err == nil {
		_, err = watch.Recv()
	}
	require.Error(t, err)
}

func TestDrainEndsStreamsAfterTheirLastChance(t *testing.T) {
	ca := tlstest.NewCA(t, cluster)
	n := startNode(t, ca)
	c := conf(t, ca, n)
	c.DrainTimeout = 300 * time.Millisecond
	r := run(t, c)
	r.isReady(t)
	cc := dial(t, r.Addr(), nil)
	ctx := testutil.Context(t, bound)

	tail, err := logv1.NewLogClient(cc).ConsumeStream(ctx, &logv1.ConsumeRequest{})
	require.NoError(t, err)
	first, err := tail.Recv()
	require.NoError(t, err)
	require.Equal(t, "only", string(first.Record.Value))
	passed, err := cc.NewStream(ctx, bidi, "/test.Other/EchoAll")
	require.NoError(t, err)
	require.NoError(t, passed.SendMsg(text("hello")))
	var out wrapperspb.StringValue
	require.NoError(t, passed.RecvMsg(&out))

	begin := time.Now()
	r.stop()
	_, err = tail.Recv()
	require.GreaterOrEqual(t, time.Since(begin), c.DrainTimeout)
	require.Equal(t, apierr.ReasonDraining, apierr.ReasonOf(err), "%v", err)
	require.Equal(t, codes.Unavailable, status.Code(passed.RecvMsg(&out)))
	require.NoError(t, <-r.done)
}

// Streams go on until their time is over.
func TestDrainLeavesStreamsTheirTime(t *testing.T) {
	ca := tlstest.NewCA(t, cluster)
	n := startNode(t, ca)
	c := conf(t, ca, n)
	c.DrainTimeout = time.Hour
	r := run(t, c)
	r.isReady(t)
	passed, err := dial(t, r.Addr(), nil).NewStream(testutil.Context(t, bound), bidi, "/test.Other/EchoAll")
	require.NoError(t, err)
	n.came(t)
	r.stop()
	refuses(t, r.Addr())
	var out wrapperspb.StringValue
	require.NoError(t, passed.SendMsg(text("still there")))
	require.NoError(t, passed.RecvMsg(&out))
	require.NoError(t, r.Close(), "it does not wait for them")
	require.NoError(t, <-r.done)
}

// A balancer goes on making connections until it has noticed.
func TestDrainTakesCallsForItsDelay(t *testing.T) {
	ca := tlstest.NewCA(t, cluster)
	c := conf(t, ca, startNode(t, ca))
	c.DrainDelay = time.Hour
	r := run(t, c)
	r.isReady(t)
	ctx := testutil.Context(t, bound)

	r.stop()
	testutil.Eventually(t, bound, func() error {
		if code, why := get(t, r.AdminAddr(), "/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(why, "draining") {
			return fmt.Errorf("/readyz: %d %s", code, why)
		}
		return nil
	})
	cc := dial(t, r.Addr(), nil) // a new connection
	testutil.Eventually(t, bound, func() error {
		res, err := healthv1.NewHealthClient(cc).Check(ctx, &healthv1.HealthCheckRequest{})
		require.NoError(t, err)
		if res.Status != healthv1.HealthCheckResponse_NOT_SERVING {
			return fmt.Errorf("health: %v", res.Status)
		}
		return nil
	})
	var out wrapperspb.StringValue
	require.NoError(t, cc.Invoke(ctx, "/test.Other/Echo", text("hello"), &out))
	require.Equal(t, "hello", out.Value)
	select {
	case err := <-r.done:
		t.Fatalf("Run ended within the delay: %v", err)
	default:
	}
	require.NoError(t, r.Close(), "it does not wait for the delay")
	require.NoError(t, <-r.done)
}

func TestDrainGoesOnAfterItsDelay(t *testing.T) {
	ca := tlstest.NewCA(t, cluster)
	c := conf(t, ca, startNode(t, ca))
	c.DrainDelay = 300 * time.Millisecond
	r := run(t, c)
	r.isReady(t)
	begin := time.Now()
	r.stop()
	refuses(t, r.Addr())
	require.GreaterOrEqual(t, time.Since(begin), c.DrainDelay)
	require.NoError(t, <-r.done)
}

func TestDrainByCall(t *testing.T) {
	_, r, _ := through(t)
	require.NoError(t, r.Drain(testutil.Context(t, bound)))
	require.NoError(t, <-r.done)
}

func TestCloseDoesNotWaitForCalls(t *testing.T) {
	n, r, cc := through(t)
	ended := make(chan error, 1)
	go func() {
		var out wrapperspb.StringValue
		ended <- cc.Invoke(testutil.Context(t, bound), "/test.Other/Slow", text(""), &out)
	}()
	n.came(t)
	require.NoError(t, r.Close())
	require.NoError(t, <-r.done)
	require.Equal(t, codes.Unavailable, status.Code(<-ended))
	require.Error(t, r.Run(testutil.Context(t, bound)), "it runs once")
}

func TestDrainByRequest(t *testing.T) {
	_, r, _ := through(t)
	res, err := http.Post("http://"+r.AdminAddr()+"/api/drain", "", nil)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Equal(t, http.StatusAccepted, res.StatusCode)
	http.DefaultClient.CloseIdleConnections()
	require.NoError(t, <-r.done)
}
