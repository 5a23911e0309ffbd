package proxy_test

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	promtest "github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/metadata"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/internal/testutil"
	"github.com/logd-io/logd/pkg/proxy"
	"github.com/logd-io/logd/pkg/tlsconf/tlstest"
)

// serving is a proxy with a registry and a log of the test's.
func serving(t *testing.T, deps proxy.Deps) (*node, *running) {
	t.Helper()
	ca := tlstest.NewCA(t, cluster)
	n := startNode(t, ca)
	p, err := proxy.Open(conf(t, ca, n), deps)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Proxy: p, stop: cancel, done: make(chan error, 1)}
	go func() { r.done <- p.Run(ctx) }()
	t.Cleanup(func() {
		require.NoError(t, p.Close())
		cancel()
	})
	r.isReady(t)
	return n, r
}

// Nobody makes up series: not by methods, nor by request ids, sessions and whom one
// says to be.
func TestNoCallerMakesUpSeries(t *testing.T) {
	reg := prometheus.NewRegistry()
	n, r := serving(t, proxy.Deps{Registry: reg})
	cc := dial(t, r.Addr(), nil)
	ctx := testutil.Context(t, 20*bound)
	done := make(chan struct{})
	defer func() { <-done }()
	defer close(n.calls)
	go func() { // nobody looks at the calls that come to the node
		defer close(done)
		for range n.calls {
			continue
		}
	}()
	flood := func(from, to int) {
		const workers = 32
		var wg sync.WaitGroup
		for w := range workers {
			wg.Go(func() {
				for i := from + w; i < to; i += workers {
					_ = cc.Invoke(ctx, fmt.Sprintf("/made.Up%d/Method%d", i, i), text(""), text("")) // refused by the node
					md := metadata.AppendToOutgoingContext(ctx, "logd-request-id", fmt.Sprintf("id-%d", i),
						"logd-session", fmt.Sprintf("session-%d", i), "logd-original-principal", fmt.Sprintf("principal-%d", i))
					if _, err := logv1.NewLogClient(cc).Produce(md, &logv1.ProduceRequest{Record: &logv1.Record{}}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
	}
	count := func() int {
		c, err := promtest.GatherAndCount(reg)
		require.NoError(t, err)
		return c
	}
	flood(0, 10)
	before := count()
	flood(10, 10_000)
	require.Equal(t, before, count())
	t.Logf("%d series", before)
}

// Of upstreams there are only so many series, and those of nodes that have gone make
// room.
func TestSeriesOfNodesThatHaveGoneMakeRoom(t *testing.T) {
	for i, n := range proxy.UpstreamSeries(10_000) {
		require.LessOrEqual(t, n, 66, "after %d nodes", i) // 64, none and other
	}
}

func TestAccessLogNamesTheUpstream(t *testing.T) {
	var out buffer
	n, r := serving(t, proxy.Deps{Logger: hclog.New(&hclog.LoggerOptions{Output: &out, Level: hclog.Debug})})
	client := logv1.NewLogClient(dial(t, r.Addr(), nil))
	ctx := testutil.Context(t, bound)
	_, err := client.Produce(ctx, &logv1.ProduceRequest{Record: &logv1.Record{}})
	require.NoError(t, err)
	require.Regexp(t, regexp.MustCompile(`access: call: method=Produce code=OK took=\S+ principal=px upstream=`+n.id), out.String())
	tail, cancel := context.WithCancel(ctx)
	s, err := client.ConsumeStream(tail, &logv1.ConsumeRequest{})
	require.NoError(t, err)
	_, err = s.Recv()
	require.NoError(t, err)
	cancel()
	ends := regexp.MustCompile(`access: call: method=ConsumeStream code=Canceled took=\S+ principal=px upstream=` + n.id)
	require.Eventually(t, func() bool { return ends.MatchString(out.String()) }, bound, 5*time.Millisecond, "a stream's line comes at its end")
	_, err = client.GetServers(ctx, &logv1.GetServersRequest{})
	require.NoError(t, err)
	require.Regexp(t, `method=GetServers code=OK took=\S+ principal=px\n`, out.String(), "no node had a part in it")
	code, body := get(t, r.AdminAddr(), "/metrics")
	require.Equal(t, 200, code)
	require.Contains(t, body, `logproxy_requests_total{code="OK",method="Produce",upstream="`+n.id+`"} 1`)
	require.Contains(t, body, `logproxy_requests_total{code="Canceled",method="ConsumeStream",upstream="`+n.id+`"} 1`)
	require.Contains(t, body, `logproxy_request_duration_seconds_count{code="OK",method="GetServers",upstream="none"} 1`)
}

// buffer is a log that is read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
