package proxy

import (
	"context"
	"errors"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/proxy/route"
	"github.com/logd-io/logd/pkg/telemetry"
)

// A refusal for the caller's own rate is told from one for want of room, whichever of
// proxy and node refused.
func TestCallsPastARateAreCounted(t *testing.T) {
	m, err := newMetrics(prometheus.NewRegistry(), telemetry.NewAccessLog(hclog.NewNullLogger()),
		func(context.Context) (string, error) { return "", nil }, &route.Holder{})
	require.NoError(t, err)
	produce := &grpc.UnaryServerInfo{FullMethod: logv1.Log_Produce_FullMethodName}
	past := apierr.Overloaded{Limit: "produce_rate"}
	for _, err := range []error{
		nil, errors.New("none of ours"), apierr.Overloaded{Why: "the disk is full"}, apierr.NotSent{},
		past, past.GRPCStatus().Err(),
	} {
		_, got := m.unary(t.Context(), nil, produce, func(context.Context, any) (any, error) { return nil, err })
		require.Equal(t, err, got)
	}
	require.EqualValues(t, 2, testutil.ToFloat64(m.pastRate.WithLabelValues("Produce", none)))
	require.Zero(t, testutil.ToFloat64(m.pastRate.WithLabelValues("Consume", none)))
}
