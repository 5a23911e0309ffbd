package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
)

// DefaultWindow is how many records a Producer has under way at most.
const DefaultWindow = 1024

// Acked is how far a producer got. Records are acknowledged in the order they
// were sent.
type Acked struct {
	Sent  uint64 // handed to the stream
	Acked uint64 // the first Acked of them are in the log
	First uint64 // offset of the first; meaningless while Acked is 0
	Last  uint64 // offset of the last one acknowledged; likewise
}

// ErrProducerClosed is what Send answers after Close.
var ErrProducerClosed = errors.New("producer is closed")

// Producer sends records on one stream without waiting for each. One goroutine
// at a time may Send; Progress may be called by any.
type Producer struct {
	stream logv1.Log_ProduceStreamClient
	cancel context.CancelFunc
	window chan struct{} // one place per record under way; its capacity is the window
	done   chan struct{} // closed when receiving has ended

	mu       sync.Mutex
	progress Acked // guarded by mu
	closed   bool  // guarded by mu
	err      error // guarded by mu; why the stream broke, written before done is closed
}

// Producer opens a stream that lives as long as ctx, until Close. window 0 means
// DefaultWindow.
func (c *Client) Producer(ctx context.Context, window int) (*Producer, error) {
	if window <= 0 {
		window = DefaultWindow
	}
	ctx, cancel := context.WithCancel(ctx)
	stream, err := c.log.ProduceStream(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	p := &Producer{
		stream: stream,
		cancel: cancel,
		window: make(chan struct{}, window),
		done:   make(chan struct{}),
	}
	go p.receive() // takes acknowledgements until the stream ends; Close waits for it
	return p, nil
}

func (p *Producer) receive() {
	defer close(p.done)
	for {
		res, err := p.stream.Recv()
		p.mu.Lock()
		switch {
		case errors.Is(err, io.EOF) && p.progress.Acked < p.progress.Sent:
			p.err = fmt.Errorf("the server ended the stream with %d records unanswered", p.progress.Sent-p.progress.Acked)
		case errors.Is(err, io.EOF) && !p.closed:
			p.err = errors.New("the server ended the stream")
		case errors.Is(err, io.EOF): // all was answered
		case err != nil:
			p.err = err
		case p.progress.Acked == p.progress.Sent:
			err = errors.New("the server acknowledged a record that was not sent")
			p.err = err
		default:
			if p.progress.Acked == 0 {
				p.progress.First = res.GetOffset()
			}
			p.progress.Acked++
			p.progress.Last = res.GetOffset()
		}
		p.mu.Unlock()
		if err != nil {
			p.cancel() // a Send that is blocked in the stream ends
			return
		}
		<-p.window
	}
}

// Send hands a record to the stream, and waits while the window is full. It
// returns an error when the stream is broken: how far it got, Progress tells.
// The record may be reused after Send returns.
func (p *Producer) Send(ctx context.Context, record *logv1.Record) error {
	select {
	case p.window <- struct{}{}:
	case <-p.done:
		return p.broken()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return ErrProducerClosed
	}
	p.progress.Sent++ // before it can be answered
	p.mu.Unlock()
	if err := p.stream.Send(&logv1.ProduceRequest{Record: record}); err != nil {
		<-p.done // what broke it comes from the receiving side
		return p.broken()
	}
	return nil
}

func (p *Producer) broken() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		return ErrProducerClosed
	}
	return p.err
}

// Progress is how far it got.
func (p *Producer) Progress() Acked {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.progress
}

// Close says that no more comes, waits until all that was sent is acknowledged
// or ctx ends, and returns why the stream broke, if it did.
func (p *Producer) Close(ctx context.Context) error {
	p.mu.Lock()
	first := !p.closed
	p.closed = true
	p.mu.Unlock()
	if first {
		_ = p.stream.CloseSend() // a broken stream is reported by the receiving side
	}
	defer p.cancel()
	select {
	case <-p.done:
	case <-ctx.Done():
		p.cancel()
		<-p.done
		return errors.Join(context.Cause(ctx), p.err)
	}
	return p.err
}
