package forward

import (
	"context"
	"errors"
	"io"

	"github.com/logd-io/logd/pkg/apierr"
)

// verdict is what the end of an append stream says about the batches on it. The
// node answers a stream in order, so a refusal is about the oldest batch without
// an acknowledgement, and those behind it were refused with it.
type verdict int

const (
	unknown        verdict = iota // may have been appended
	refusedForNow                 // was not appended; somebody or some time may take it
	refusedNumber                 // was not appended under these numbers
	refusedContent                // was not appended and never will be
	refusedCaller                 // was not appended: the caller may not
)

func verdictOf(err error) verdict {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) {
		return unknown
	}
	info, ok := apierr.From(err)
	if !ok {
		switch info.Err().(type) { //nolint:errorlint // Err makes the value anew
		case apierr.Unauthenticated, apierr.PermissionDenied:
			return refusedCaller
		}
		return unknown
	}
	switch info.Reason {
	case apierr.ReasonNotLeader, apierr.ReasonDraining, apierr.ReasonOverloaded, apierr.ReasonNotSent:
		return refusedForNow
	case apierr.ReasonSequenceGap, apierr.ReasonUnknownProducer, apierr.ReasonFenced:
		return refusedNumber
	case apierr.ReasonInvalid:
		return refusedContent
	}
	return unknown
}

// refusal is a node's definite refusal as the client is told it.
func refusal(err error) error {
	info, _ := apierr.From(err)
	return info.Err()
}
