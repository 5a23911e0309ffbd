package control

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
)

// errStalled ends a watch that has said nothing for too long.
var errStalled = errors.New("no view within the allowed time")

const (
	watchRetryBase = 50 * time.Millisecond
	watchRetryMax  = 2 * time.Second
)

// follow reports k's connection state, now and at every change, until the link
// is let go.
func (c *Control) follow(k *link) {
	for {
		s := k.node.State()
		if !c.post(k.ctx, func(l *loop) { l.connection(k, s) }) || s == connectivity.Shutdown {
			return
		}
		if !k.node.WaitForStateChange(k.ctx, s) {
			return
		}
	}
}

// watch reports the views that k's node sends, and then why there are no more.
func (c *Control) watch(ctx context.Context, k *link) {
	err := c.views(ctx, k)
	if ctx.Err() != nil {
		err = nil // stopWatch
	}
	c.post(k.ctx, func(l *loop) { l.watchEnded(k, err) })
}

func (c *Control) views(ctx context.Context, k *link) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.AfterFunc(c.cfg.StallAfter, func() { cancel(errStalled) })
	defer stall.Stop()

	stream, err := nodev1.NewNodeClient(k.node.Conn()).WatchCluster(ctx, &nodev1.WatchClusterRequest{})
	for err == nil {
		var v *nodev1.ClusterView
		if v, err = stream.Recv(); err == nil {
			stall.Reset(c.cfg.StallAfter)
			c.post(k.ctx, func(l *loop) { l.viewed(k, v) })
		}
	}
	if errors.Is(context.Cause(ctx), errStalled) {
		return errStalled
	}
	return err
}

// retryIn is the pause after n watches in a row without a view.
func retryIn(n int) time.Duration {
	return min(watchRetryBase<<min(n, 10), watchRetryMax)
}

// reasonOf is a bounded label for why a watch ended: one of gRPC's codes, or ours.
func reasonOf(err error) string {
	if errors.Is(err, errStalled) {
		return "stalled"
	}
	return status.Code(err).String()
}
