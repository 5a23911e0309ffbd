package server

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/internal/throttle"
	"github.com/logd-io/logd/pkg/replica"
)

// status is err as the caller gets to see it. What the caller cannot act on goes
// into the log here, and nowhere else.
func (s *Server) status(method string, err error) error {
	if kind := s.kind(err); kind != nil {
		var damaged apierr.Corrupt
		if errors.As(kind, &damaged) {
			s.logger.Error("damaged data met while serving", "method", method, "err", err)
		}
		return kind
	}
	if st, ok := status.FromError(err); ok { // gRPC's own, and kinds of apierr
		return st.Err()
	}
	switch {
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, "canceled")
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, "deadline exceeded")
	}
	s.logger.Error("request failed", "method", method, "err", err)
	return status.Error(codes.Internal, "internal error; the node's log has it")
}

// kind translates domain errors; nil for what is none.
func (s *Server) kind(err error) error {
	var (
		notLeader *replica.NotLeaderError
		overload  *replica.OverloadedError
		diskLow   *replica.DiskLowError
		invalid   *replica.InvalidError
		gap       *replica.GapError
		fenced    *replica.FencedError
		unknown   *replica.UnknownProducerError
		behind    *replica.BehindError
		position  *replica.PositionUnknownError
		mismatch  *replica.ClusterMismatchError
		taken     *replica.NameTakenError
		transfer  *replica.TransferError
		fatal     *replica.FatalError
		outOf     *commitlog.OutOfRangeError
		corrupt   *commitlog.CorruptError
		logFatal  *commitlog.FatalError
		past      *throttle.Error
	)
	switch {
	case errors.As(err, &notLeader):
		return apierr.NotLeader{Leader: notLeader.LeaderID, Address: s.address(notLeader.LeaderID), Term: notLeader.Term}
	case errors.Is(err, replica.ErrOutcomeUnknown):
		return apierr.OutcomeUnknown{}
	case errors.As(err, &overload):
		return apierr.Overloaded{RetryAfter: overload.RetryAfter}
	case errors.As(err, &past):
		return apierr.Overloaded{RetryAfter: past.After, Why: past.Error(), Limit: past.Limit}
	case errors.As(err, &diskLow):
		return apierr.Overloaded{RetryAfter: diskLow.RetryAfter, Why: diskLow.Error()}
	case errors.As(err, &invalid):
		return apierr.Invalid{Field: invalid.Field, Why: invalid.Reason}
	case errors.As(err, &gap):
		return apierr.SequenceGap{Want: gap.Want, Got: gap.Got}
	case errors.As(err, &fenced):
		return apierr.Fenced{Epoch: fenced.Epoch}
	case errors.As(err, &unknown):
		return apierr.UnknownProducer{}
	case errors.As(err, &behind):
		return apierr.Behind{Visible: behind.Visible}
	case errors.As(err, &position):
		return apierr.PositionUnknown{Visible: position.Visible}
	case errors.As(err, &mismatch):
		return apierr.Invalid{Field: "cluster_id", Why: mismatch.Error()}
	case errors.As(err, &taken):
		return apierr.Invalid{Field: "id", Why: taken.Error()}
	case errors.Is(err, replica.ErrNoOtherVoter):
		return apierr.Precondition{Why: replica.ErrNoOtherVoter.Error()}
	case errors.As(err, &transfer):
		return apierr.Failed{Why: transfer.Error()}
	case errors.As(err, &outOf):
		return apierr.OutOfRange{Offset: outOf.Offset, Lowest: outOf.Lowest, Next: outOf.Next}
	case errors.As(err, &corrupt):
		return apierr.Corrupt{}
	case errors.Is(err, replica.ErrDraining), errors.Is(err, replica.ErrClosed), errors.Is(err, replica.ErrNotRunning),
		errors.Is(err, replica.ErrRaftStopped), errors.Is(err, commitlog.ErrClosed),
		errors.As(err, &fatal), errors.As(err, &logFatal):
		return apierr.Draining{}
	}
	return nil
}

// settled is the error a submitted batch ended with. It was proposed, so unless
// the error says that it was certainly not appended, its outcome is unknown: a
// caller takes every other reason for leave to send it again.
func settled(err error) error {
	var (
		notLeader *replica.NotLeaderError
		overload  *replica.OverloadedError
		invalid   *replica.InvalidError
		gap       *replica.GapError
		fenced    *replica.FencedError
		unknown   *replica.UnknownProducerError
	)
	switch {
	case errors.Is(err, replica.ErrOutcomeUnknown), errors.Is(err, replica.ErrDraining),
		errors.As(err, &notLeader), errors.As(err, &overload), errors.As(err, &invalid),
		errors.As(err, &gap), errors.As(err, &fenced), errors.As(err, &unknown):
		return err
	}
	return fmt.Errorf("%w: %w", replica.ErrOutcomeUnknown, err)
}
