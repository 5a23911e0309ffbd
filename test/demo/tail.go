package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"google.golang.org/grpc"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/test/harness"
)

// tail is a naive consumer: one ConsumeStream from offset 0, never opened again.
type tail struct {
	next   atomic.Uint64 // the offset after the last record it has read
	gaps   atomic.Uint64
	cancel context.CancelFunc
	done   chan struct{} // closed when the stream has ended
	err    error         // why; read after done
}

func startTail(ctx context.Context, conn grpc.ClientConnInterface) *tail {
	ctx, cancel := context.WithCancel(ctx)
	t := &tail{cancel: cancel, done: make(chan struct{})}
	go func() { // joined by stop
		defer close(t.done)
		t.err = harness.Tail(ctx, conn, 0, func(rec *logv1.Record) bool {
			t.next.Store(rec.GetOffset() + 1)
			return true
		})
		var gap *harness.GapError
		if errors.As(t.err, &gap) {
			t.gaps.Add(1)
		}
	}()
	return t
}

// wait blocks until the tail has read everything below next.
func (t *tail) wait(ctx context.Context, next uint64) error {
	return harness.Until(ctx, func() error {
		select {
		case <-t.done:
			return harness.Ended(t.err)
		default:
		}
		if at := t.next.Load(); at < next {
			return fmt.Errorf("it has read %d of %d records", at, next)
		}
		return nil
	})
}

func (t *tail) stop() {
	t.cancel()
	<-t.done
}
