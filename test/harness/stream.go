package harness

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
)

// inFlight is how many records of a stream of Produce are unanswered at most.
const inFlight = 1024

// Produce sends records of size bytes on one ProduceStream for as long as more,
// asked with the number sent, says so, waits for all acknowledgements, and tells
// how many there were. It fails when they are not in the order of the log.
func Produce(ctx context.Context, conn grpc.ClientConnInterface, size int, more func(sent int) bool) (acked int, err error) {
	g, ctx := errgroup.WithContext(ctx)
	stream, err := logv1.NewLogClient(conn).ProduceStream(ctx)
	if err != nil {
		return 0, err
	}
	window := make(chan struct{}, inFlight) // a place a record that is not answered
	sent := 0
	g.Go(func() error {
		req := &logv1.ProduceRequest{Record: &logv1.Record{Value: make([]byte, size)}}
		for ; more(sent); sent++ {
			select {
			case window <- struct{}{}:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			if err := stream.Send(req); err != nil {
				if errors.Is(err, io.EOF) {
					return nil // the reader has the reason
				}
				return err
			}
		}
		return stream.CloseSend()
	})
	g.Go(func() error {
		for last := uint64(0); ; acked++ {
			resp, err := stream.Recv()
			switch {
			case errors.Is(err, io.EOF):
				return nil
			case err != nil:
				return err
			case acked > 0 && resp.GetOffset() <= last:
				return fmt.Errorf("a record got offset %d after one that got %d", resp.GetOffset(), last)
			}
			last = resp.GetOffset()
			select {
			case <-window:
			default:
				return errors.New("more was acknowledged than was sent")
			}
		}
	})
	if err := g.Wait(); err != nil {
		return acked, err
	}
	if acked != sent {
		return acked, fmt.Errorf("the stream ended after %d of %d acknowledgements", acked, sent)
	}
	return acked, nil
}
