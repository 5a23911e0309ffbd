package replica_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/replica"
	"github.com/logd-io/logd/pkg/vfs"
)

// BenchmarkSubmit is the leader's path with one node, on the real filesystem:
// producers that wait for each record, and one that does not.
func BenchmarkSubmit(b *testing.B) {
	for _, producers := range []int{1, 64} {
		b.Run(fmt.Sprintf("waiting=%d", producers), func(b *testing.B) {
			l := benchLeader(b)
			b.ReportAllocs()
			var wg sync.WaitGroup
			b.ResetTimer()
			for i := range producers {
				wg.Add(1)
				go func() {
					defer wg.Done()
					for n := i; n < b.N; n += producers {
						p, err := l.r.Submit(one("a record of a hundred bytes ........................................................................"))
						if err == nil {
							_, err = p.Result()
						}
						if err != nil {
							b.Error(err)
							return
						}
					}
				}()
			}
			wg.Wait()
		})
	}
	b.Run("pipelined", func(b *testing.B) {
		l := benchLeader(b)
		b.ReportAllocs()
		window := make([]*replica.Pending, 0, 4096)
		for b.Loop() {
			p, err := l.r.Submit(one("a record of a hundred bytes ........................................................................"))
			require.NoError(b, err)
			if window = append(window, p); len(window) == cap(window) {
				for _, p := range window {
					_, err := p.Result()
					require.NoError(b, err)
				}
				window = window[:0]
			}
		}
	})
}

func benchLeader(b *testing.B) *node {
	dir := b.TempDir()
	c := boot(b, 1, func(cfg *replica.Config) { cfg.FS, cfg.Dir, cfg.SegmentBytes = vfs.OS{}, dir, 0 })
	return c.leader()
}
