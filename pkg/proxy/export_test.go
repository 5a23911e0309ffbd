package proxy

import (
	"fmt"
	"net"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"

	"github.com/logd-io/logd/pkg/internal/netlimit"
	"github.com/logd-io/logd/pkg/proxy/route"
)

// Accepted is lis as Run serves it.
func Accepted(lis net.Listener) net.Listener { return accepted{lis, netlimit.NewNewest(8, nil)} }

// UpstreamSeries counts a call of each of n nodes, of which the table has one at a time,
// and gives the number of series of calls after each.
func UpstreamSeries(n int) (counts []int) {
	calls := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "x_total"}, []string{"method", "code", "upstream"})
	var s callSeries
	s.init(calls, prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "x_seconds"}, []string{"method", "code", "upstream"}),
		prometheus.NewCounterVec(prometheus.CounterOpts{Name: "x_past_total"}, []string{"method", "upstream"}), new(route.Holder))
	for i := range n {
		s.of("Produce", true, codes.OK, fmt.Sprintf("n%d.00000001", i)).total.Inc()
		ch := make(chan prometheus.Metric, n+1)
		calls.Collect(ch)
		counts = append(counts, len(ch))
	}
	return counts
}
