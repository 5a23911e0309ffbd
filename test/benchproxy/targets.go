package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/test/benchkit"
	"github.com/logd-io/logd/test/harness"
)

const (
	direct   = "direct"
	logproxy = "logproxy"
	nginx    = "nginx"
	haproxy  = "haproxy"
)

var allTargets = []string{direct, logproxy, nginx, haproxy}

// target is one way to a node.
type target struct {
	name  string
	conns []grpc.ClientConnInterface
	proxy *harness.Process // nil when there is none
}

// open opens the ways to node, the straight one first. conns is how many
// connections each has. The proxy of ours finds the node by itself: it is up to
// the caller that it does.
func (b *bench) open(ctx context.Context, w *world, node *harness.Node, conns int) ([]*target, error) {
	var targets []*target
	for _, name := range allTargets {
		if name != direct && !slices.Contains(b.targets, name) {
			continue
		}
		t := &target{name: name}
		dial := func() (*grpc.ClientConn, error) { return w.Dial("client", node) }
		switch name {
		case logproxy:
			t.proxy = w.proxy.Process
			dial = func() (*grpc.ClientConn, error) { return harness.Naive(w.proxy.Addr) }
		case nginx, haproxy:
			p, addr, err := b.startPeer(w, name, node)
			if err != nil {
				return nil, err
			}
			t.proxy = p
			dial = func() (*grpc.ClientConn, error) { return harness.Naive(addr) }
		}
		for range conns {
			conn, err := dial()
			if err != nil {
				return nil, err
			}
			w.closers = append(w.closers, conn.Close)
			t.conns = append(t.conns, conn)
		}
		if err := t.ready(ctx); err != nil {
			return nil, err
		}
		targets = append(targets, t)
	}
	return targets, nil
}

// ready waits until every connection gets answers.
func (t *target) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for _, conn := range t.conns {
		err := harness.Until(ctx, func() error {
			if t.proxy != nil && !t.proxy.Running() {
				return harness.Ended(fmt.Errorf("it has ended; the end of its log:\n%s", t.proxy.Tail(20)))
			}
			_, err := logv1.NewLogClient(conn).GetOffsets(ctx, &logv1.GetOffsetsRequest{})
			return err
		})
		if err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
	}
	return nil
}

// contenders are the targets, each measured by measure.
func (w *world) contenders(targets []*target, measure func(context.Context, *target, time.Duration) (benchkit.Load, error)) []benchkit.Contender {
	var cs []benchkit.Contender
	for _, t := range targets {
		cs = append(cs, benchkit.Contender{
			Name:    t.name,
			CPU:     func() ([]time.Duration, error) { return w.usage(t.proxy) },
			Measure: func(ctx context.Context, d time.Duration) (benchkit.Load, error) { return measure(ctx, t, d) },
		})
	}
	return cs
}
