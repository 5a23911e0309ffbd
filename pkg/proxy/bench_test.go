package proxy_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/tlsconf/tlstest"
)

// BenchmarkProduce is a whole proxy with a leader that acknowledges at once: the
// listener, its limits, metrics and the forwarder.
func BenchmarkProduce(b *testing.B) {
	ca := tlstest.NewCA(b, cluster)
	r := run(b, conf(b, ca, startNode(b, ca)))
	r.isReady(b)
	for _, clients := range []int{1, 64} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			client := logv1.NewLogClient(dial(b, r.Addr(), nil))
			req := &logv1.ProduceRequest{Record: &logv1.Record{Value: make([]byte, 100)}}
			_, err := client.Produce(b.Context(), req)
			require.NoError(b, err)
			b.ReportAllocs()
			var left atomic.Int64
			left.Store(int64(b.N))
			b.ResetTimer()
			var wg sync.WaitGroup
			for range clients {
				wg.Go(func() {
					for left.Add(-1) >= 0 {
						if _, err := client.Produce(context.Background(), req); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
		})
	}
}
