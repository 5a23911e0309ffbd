package client

import (
	"context"
	"errors"
	"io"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
)

// Consume hands the records from offset from on to fn, one after the other, and
// waits at the end of the log for more. It ends when fn returns an error, which
// it returns, when ctx ends, or when the stream breaks. fn owns the record.
func (c *Client) Consume(ctx context.Context, from uint64, fn func(*logv1.Record) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream on every way out
	stream, err := c.log.ConsumeStream(ctx, &logv1.ConsumeRequest{Offset: from})
	if err != nil {
		return err
	}
	for {
		res, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF // a consume stream has no end of its own
		}
		if err != nil {
			return err
		}
		if res.GetRecord() == nil {
			return errors.New("the server sent no record")
		}
		if err := fn(res.GetRecord()); err != nil {
			return err
		}
	}
}

// errRange ends a bounded consume.
var errRange = errors.New("end of range")

// ConsumeRange is Consume of [from, to): it ends after the record before to.
func (c *Client) ConsumeRange(ctx context.Context, from, to uint64, fn func(*logv1.Record) error) error {
	if from >= to {
		return nil
	}
	err := c.Consume(ctx, from, func(r *logv1.Record) error {
		if r.GetOffset() < to {
			if err := fn(r); err != nil {
				return err
			}
		}
		if r.GetOffset()+1 >= to {
			return errRange
		}
		return nil
	})
	if errors.Is(err, errRange) {
		return nil
	}
	return err
}
