package telemetry_test

import (
	"context"
	"testing"

	grpcprom "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/telemetry"
)

// BenchmarkUnaryCounted compares what counting one unary call costs with
// go-grpc-middleware's provider and here.
func BenchmarkUnaryCounted(b *testing.B) {
	info := &grpc.UnaryServerInfo{FullMethod: logv1.Log_Produce_FullMethodName}
	ours, err := telemetry.ServerCalls(prometheus.NewRegistry(), logv1.Log_ServiceDesc)
	require.NoError(b, err)
	for name, intercept := range map[string]grpc.UnaryServerInterceptor{
		"provider": grpcprom.NewServerMetrics(grpcprom.WithServerHandlingTimeHistogram()).UnaryServerInterceptor(),
		"ours":     ours.UnaryServer,
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = intercept(context.Background(), nil, info, func(context.Context, any) (any, error) { return nil, nil })
			}
		})
	}
}
