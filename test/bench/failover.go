package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/test/benchkit"
	"github.com/logd-io/logd/test/harness"
)

// defaultHeartbeat is the node's default; the goal counts in heartbeats.
const defaultHeartbeat = 300 * time.Millisecond

// failover kills the leader again and again, and measures from the kill to the
// acknowledgement of a record that was sent after it.
func (b *bench) failover(ctx context.Context, w *world) error {
	conn, err := harness.Naive(w.proxy.Addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	client := logv1.NewLogClient(conn)
	produce := func() error {
		_, err := client.Produce(ctx, &logv1.ProduceRequest{Record: &logv1.Record{Value: []byte("probe")}})
		return err
	}
	var gaps []time.Duration
	for range b.kills {
		leader, err := w.Leader(ctx)
		if err != nil {
			return err
		}
		if err := produce(); err != nil {
			return fmt.Errorf("before a kill: %w", err)
		}
		begun := time.Now()
		if err := leader.Kill(); err != nil {
			return err
		}
		if err := produce(); err != nil {
			return fmt.Errorf("a naive client saw an error after the leader was killed: %w", err)
		}
		gaps = append(gaps, time.Since(begun))
		if err := leader.Start(); err != nil {
			return err
		}
		if err := w.NodeReady(ctx, leader); err != nil {
			return err
		}
	}
	slices.Sort(gaps)
	mid, worst := gaps[len(gaps)/2], gaps[len(gaps)-1]
	fmt.Printf("\nfailover, leader killed to next acknowledgement through the proxy, %d kills: min %s  p50 %s  p90 %s  max %s\n", len(gaps),
		gaps[0].Round(time.Millisecond), mid.Round(time.Millisecond), gaps[len(gaps)*9/10].Round(time.Millisecond), worst.Round(time.Millisecond))
	benchkit.Goal.AtMost("failover-median-heartbeats", float64(mid)/float64(defaultHeartbeat), 3, "")
	benchkit.Goal.AtMost("failover-worst-heartbeats", float64(worst)/float64(defaultHeartbeat), 5, "")
	return nil
}
