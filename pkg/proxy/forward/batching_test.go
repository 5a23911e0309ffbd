package forward_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/metadata"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
)

// Two batches under way keep a leader busy. What waits behind them goes together
// when there is room, or sooner when it is a batch worth sending or has to travel
// alone, as long as the window allows. (DESIGN.md F7)
func TestSmallBatchesAreTwoAtATime(t *testing.T) {
	c := newCluster(t, "a")
	c.lead("a")
	step := make(chan struct{})
	c.nodes["a"].onAppend = func(*nodev1.AppendRequest) error { <-step; return nil }
	p := newProxy(t, c, patient)
	held := 0
	produce := func(n, size int, kv ...string) {
		ctx := metadata.AppendToOutgoingContext(context.Background(), kv...)
		for range n {
			go func() { _, _ = p.Produce(ctx, rec(strings.Repeat("r", size))) }()
		}
		held += n
		p.awaitHeld(t, held)
	}
	made := func(n int) {
		t.Helper()
		require.Eventually(t, func() bool { return p.batches() == n }, 20*time.Second, time.Millisecond)
	}
	produce(1, 10)
	made(1)
	produce(1, 10)
	made(2)
	produce(30, 10)
	require.Equal(t, 2, p.batches())
	step <- struct{}{}
	held--
	made(3)
	c.mu.Lock()
	require.Equal(t, []int{1}, c.batches)
	c.mu.Unlock()

	produce(1, 10) // waits: two are under way
	require.Equal(t, 3, p.batches())
	produce(1, 64<<10) // worth a third, the small one with it
	made(4)
	produce(1, 10, "logd-request-id", "x") // the fourth, alone
	made(5)
	produce(1, 64<<10) // the fifth
	made(6)
	produce(1, 64<<10) // and there is no sixth
	require.Equal(t, 6, p.batches())
	close(step)
	made(7)
}
