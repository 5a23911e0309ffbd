// Package traces_test follows calls of clients through a proxy and a node with a
// collector of its own.
package traces_test

import (
	"context"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/devcluster"
	"github.com/logd-io/logd/pkg/telemetry"
)

const bound = 2 * time.Minute // a machine that hangs, not a claim

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// memberlist does not wait for these two at its end; they end by themselves.
		goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"),
		goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.newSuspicion.func1"))
}

// span is a span and the program it is of.
type span struct {
	*otlp.Span
	of string
}

// receiver is an OTLP collector that keeps what it gets.
type receiver struct {
	collector.UnimplementedTraceServiceServer
	url string

	mu    sync.Mutex
	spans []span
}

func receive(t *testing.T) *receiver {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r := &receiver{url: "http://" + lis.Addr().String()}
	s := grpc.NewServer()
	collector.RegisterTraceServiceServer(s, r)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(lis) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return r
}

func (r *receiver) Export(_ context.Context, req *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rs := range req.ResourceSpans {
		of := ""
		for _, a := range rs.Resource.Attributes {
			if a.Key == "service.name" {
				of = a.Value.GetStringValue()
			}
		}
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				r.spans = append(r.spans, span{s, of})
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

// find gives the spans that fit.
func (r *receiver) find(fits func(span) bool) (found []span) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.spans {
		if fits(s) {
			found = append(found, s)
		}
	}
	return found
}

// below gives those of that program and name right below parent.
func (r *receiver) below(parent span, of, name string) []span {
	return r.find(func(s span) bool {
		return s.of == of && s.Name == name && string(s.ParentSpanId) == string(parent.SpanId) && string(s.TraceId) == string(parent.TraceId)
	})
}

func number(s span, key string) int64 {
	for _, a := range s.Attributes {
		if a.Key == key {
			return a.Value.GetIntValue()
		}
	}
	return -1
}

func words(s span, key string) string {
	for _, a := range s.Attributes {
		if a.Key == key {
			return a.Value.GetStringValue()
		}
	}
	return ""
}

func traced(t *testing.T, program, url string, ratio float64) *telemetry.Tracing {
	t.Helper()
	tracing, err := telemetry.OpenTracing(telemetry.TraceOptions{Program: program, Endpoint: url, SampleRatio: ratio, Registerer: prometheus.NewRegistry()})
	require.NoError(t, err)
	return tracing
}

func start(t *testing.T, url string, nodes int) *devcluster.Cluster {
	t.Helper()
	c, err := devcluster.Start(devcluster.Options{
		AnyPort: true, Nodes: nodes, Heartbeat: time.Second,
		Tracing: func(name string) *telemetry.Tracing {
			if name == "proxy1" {
				return traced(t, "logproxy", url, 0) // it records what clients begin
			}
			return traced(t, "logd", url, 0)
		},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

func dial(t *testing.T, c *devcluster.Cluster, opts ...grpc.DialOption) logv1.LogClient {
	t.Helper()
	conn, err := grpc.NewClient(c.Proxy(), append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return logv1.NewLogClient(conn)
}

func TestACallIsFollowedToItsCommit(t *testing.T) {
	r := receive(t)
	c := start(t, r.url, 3)
	client := traced(t, "client", r.url, 1)
	log := dial(t, c, client.DialOptions()...)
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	_, err := log.Produce(ctx, &logv1.ProduceRequest{Record: &logv1.Record{}}, grpc.WaitForReady(true))
	require.NoError(t, err)
	var calls sync.WaitGroup
	for range 64 {
		calls.Go(func() {
			if _, err := log.Produce(ctx, &logv1.ProduceRequest{Record: &logv1.Record{}}); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	tail, end := context.WithCancel(ctx)
	s, err := log.ConsumeStream(tail, &logv1.ConsumeRequest{})
	require.NoError(t, err)
	for range 65 {
		_, err = s.Recv()
		require.NoError(t, err)
	}
	end()
	_, _ = s.Recv()
	require.NoError(t, c.Close()) // and with it everything is exported
	require.NoError(t, client.Close())

	served := r.find(func(s span) bool {
		return s.of == "logproxy" && s.Name == "log.v1.Log/Produce" && s.Kind == otlp.Span_SPAN_KIND_SERVER
	})
	require.Len(t, served, 65)
	linked, batched := map[string]bool{}, 0
	for _, b := range r.find(func(s span) bool { return s.of == "logproxy" && s.Name == "append batch" }) {
		first := slices.IndexFunc(served, func(s span) bool { return string(s.SpanId) == string(b.ParentSpanId) })
		require.GreaterOrEqual(t, first, 0, "a batch is below one of its calls")
		require.Equal(t, served[first].TraceId, b.TraceId)
		root := r.find(func(s span) bool { return s.of == "client" && string(s.SpanId) == string(served[first].ParentSpanId) })
		require.Len(t, root, 1, "and that below the client's own")
		require.Len(t, b.Links, int(number(b, "logd.records")), "a link to each call")
		for _, l := range b.Links {
			linked[string(l.SpanId)] = true
		}
		batched += len(b.Links)
		require.NotEmpty(t, words(b, "logd.upstream"))

		on := r.below(b, "logd", "append")
		require.Len(t, on, 1, "the node's part")
		commits := r.below(on[0], "logd", "commit")
		require.Len(t, commits, 1)
		require.Equal(t, number(b, "logd.offset"), number(commits[0], "logd.offset"))
		require.Positive(t, number(commits[0], "raft.term"))
		require.Positive(t, number(commits[0], "raft.index"))
		require.LessOrEqual(t, on[0].StartTimeUnixNano, commits[0].StartTimeUnixNano)
		require.Less(t, commits[0].StartTimeUnixNano, commits[0].EndTimeUnixNano)
	}
	require.Equal(t, 65, batched)
	for _, s := range served {
		require.True(t, linked[string(s.SpanId)], "every call is in a batch's links")
	}

	streams := r.find(func(s span) bool { return s.of == "logproxy" && s.Name == "log.v1.Log/ConsumeStream" })
	require.Len(t, streams, 1)
	segments := r.below(streams[0], "logproxy", "stream segment")
	require.NotEmpty(t, segments) // more, where a node was slow and the stream moved on
	end65, onNode := false, 0
	for _, seg := range segments {
		fetches := r.below(seg, "logproxy", "node.v1.Node/FetchStream")
		require.Len(t, fetches, 1)
		onNode += len(r.below(fetches[0], "logd", "node.v1.Node/FetchStream"))
		end65 = end65 || number(seg, "logd.next_offset") == 65
	}
	require.True(t, end65, "a segment goes to where the stream came")
	require.Positive(t, onNode, "on the node, too")
	require.Empty(t, r.find(func(s span) bool { return s.Name == "node.v1.Node/Append" || s.Name == "node.v1.Node/WatchCluster" }), "what never ends has no span")
}

// What a client does not have recorded is not, when nothing begins here.
func TestNothingIsRecordedThatNobodyAskedFor(t *testing.T) {
	r := receive(t)
	c := start(t, r.url, 1)
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	_, err := dial(t, c).Produce(ctx, &logv1.ProduceRequest{Record: &logv1.Record{}}, grpc.WaitForReady(true))
	require.NoError(t, err)
	require.NoError(t, c.Close())
	require.Empty(t, r.find(func(span) bool { return true }))
}

// A collector that is not there costs spans, and nothing else.
func TestACollectorThatIsNotThereHarmsNothing(t *testing.T) {
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	require.NoError(t, err)
	defer silent.Close()
	require.NoError(t, gone.Close())
	for name, url := range map[string]string{"refuses": "http://" + gone.Addr().String(), "silent": "http://" + silent.Addr().String()} {
		t.Run(name, func(t *testing.T) {
			c := start(t, url, 1)
			client := traced(t, "client", url, 1)
			log := dial(t, c, client.DialOptions()...)
			ctx, cancel := context.WithTimeout(t.Context(), bound)
			defer cancel()
			for range 500 {
				_, err := log.Produce(ctx, &logv1.ProduceRequest{Record: &logv1.Record{}}, grpc.WaitForReady(true))
				require.NoError(t, err)
			}
			begin := time.Now()
			require.NoError(t, c.Close())
			require.NoError(t, client.Close())
			require.Less(t, time.Since(begin), bound/2, "the end does not wait for it")
		})
	}
}
