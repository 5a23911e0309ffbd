package server

import (
	"io"

	"github.com/logd-io/logd/pkg/replica"
)

// Stored is a batch as the log keeps it.
var Stored = storedBatch

// NewProduceStream makes what a ProduceStream has from its first moment on.
func NewProduceStream() any { return newPipeline(produceWindow, produceBytes, nil, nil, nil) }

// TakenAfterEnd counts the messages a stream submits after its end is queued.
func TakenAfterEnd(messages int) (submissions int) {
	p := newPipeline(messages, 1<<20, nil, func([]byte) (submitted, error) {
		submissions++
		return submitted{}, nil
	}, func(submitted, replica.Result) *frame { return nil })
	p.end(io.EOF)
	for range messages {
		p.take(nil, 0)
	}
	return submissions
}
