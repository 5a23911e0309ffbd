package apierr_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/logd-io/logd/pkg/apierr"
)

// overWire is err as the other side of a connection sees it.
func overWire(t *testing.T, err error) error {
	t.Helper()
	st, ok := status.FromError(err)
	require.True(t, ok, "%T is no status", err)
	raw, merr := proto.Marshal(st.Proto())
	require.NoError(t, merr)
	var back spb.Status
	require.NoError(t, proto.Unmarshal(raw, &back))
	return status.ErrorProto(&back)
}

func TestEveryKindSurvivesTheWire(t *testing.T) {
	for name, tc := range map[string]struct {
		err    error
		code   codes.Code
		reason apierr.Reason
		md     map[string]string
		retry  apierr.Retry
	}{
		"not leader": {
			apierr.NotLeader{Leader: "a.0011aabb", Address: "host:1", Term: 7}, codes.FailedPrecondition, "NOT_LEADER",
			map[string]string{"leader": "a.0011aabb", "address": "host:1", "term": "7"}, apierr.RetryElsewhere,
		},
		"not leader, none known": {
			apierr.NotLeader{Term: math.MaxUint64}, codes.FailedPrecondition, "NOT_LEADER",
			map[string]string{"leader": "", "address": "", "term": "18446744073709551615"}, apierr.RetryElsewhere,
		},
		"draining": {apierr.Draining{}, codes.Unavailable, "DRAINING", nil, apierr.RetryElsewhere},
		"out of range": {
			apierr.OutOfRange{Offset: math.MaxUint64, Lowest: 3, Next: 9}, codes.OutOfRange, "OFFSET_OUT_OF_RANGE",
			map[string]string{"offset": "18446744073709551615", "lowest": "3", "next": "9"}, apierr.RetryNever,
		},
		"behind": {
			apierr.Behind{Visible: 5}, codes.Unavailable, "BEHIND",
			map[string]string{"visible": "5"}, apierr.RetryNever,
		},
		"position unknown": {
			apierr.PositionUnknown{Visible: 5}, codes.FailedPrecondition, "POSITION_UNKNOWN",
			map[string]string{"visible": "5"}, apierr.RetryNever,
		},
		"outcome unknown": {apierr.OutcomeUnknown{}, codes.Aborted, "OUTCOME_UNKNOWN", nil, apierr.RetrySameSequence},
		"not sent":        {apierr.NotSent{}, codes.Unavailable, "NOT_SENT", nil, apierr.RetryElsewhere},
		"invalid": {
			apierr.Invalid{Field: "record.value", Why: "too large: yes"}, codes.InvalidArgument, "INVALID",
			map[string]string{"field": "record.value"}, apierr.RetryNever,
		},
		"invalid as a whole": {
			apierr.Invalid{Why: "malformed"}, codes.InvalidArgument, "INVALID",
			map[string]string{"field": ""}, apierr.RetryNever,
		},
		"overloaded, and why": {
			apierr.Overloaded{RetryAfter: time.Second, Why: "the disk of n1 is full"}, codes.ResourceExhausted, "OVERLOADED",
			map[string]string{"retry_after_ms": "1000"}, apierr.RetryLater,
		},
		"overloaded, by the caller itself": {
			apierr.Overloaded{RetryAfter: time.Second, Why: "past it", Limit: "produce_rate"}, codes.ResourceExhausted, "OVERLOADED",
			map[string]string{"retry_after_ms": "1000", "limit": "produce_rate"}, apierr.RetryLater,
		},
		"overloaded": {
			apierr.Overloaded{RetryAfter: 250 * time.Millisecond}, codes.ResourceExhausted, "OVERLOADED",
			map[string]string{"retry_after_ms": "250"}, apierr.RetryLater,
		},
		"sequence gap": {
			apierr.SequenceGap{Want: 4, Got: 6}, codes.FailedPrecondition, "SEQUENCE_GAP",
			map[string]string{"want": "4", "got": "6"}, apierr.RetryNever,
		},
		"fenced": {
			apierr.Fenced{Epoch: 3}, codes.FailedPrecondition, "FENCED",
			map[string]string{"epoch": "3"}, apierr.RetryNever,
		},
		"unknown producer": {
			apierr.UnknownProducer{}, codes.FailedPrecondition, "UNKNOWN_PRODUCER", nil, apierr.RetryNever,
		},
		"failed": {apierr.Failed{Why: "timeout"}, codes.Unavailable, "FAILED", nil, apierr.RetryLater},
		"resume failed": {
			apierr.ResumeFailed{Offset: 12}, codes.DataLoss, "RESUME_FAILED",
			map[string]string{"offset": "12"}, apierr.RetryNever,
		},
	} {
		t.Run(name, func(t *testing.T) {
			for from, err := range map[string]error{
				"in process": tc.err,
				"wrapped":    fmt.Errorf("append: %w", tc.err),
				"wire":       overWire(t, tc.err),
			} {
				info, ok := apierr.From(err)
				require.True(t, ok, from)
				require.Equal(t, tc.code, info.Code, from)
				require.Equal(t, tc.reason, info.Reason, from)
				require.Equal(t, tc.reason, apierr.ReasonOf(err), from)
				for k, v := range tc.md {
					require.Equal(t, v, info.Metadata[k], "%s: %s", from, k)
				}
				require.Len(t, info.Metadata, len(tc.md), from)
				if from == "wire" {
					require.Equal(t, tc.err, info.Err())
				}
				require.Equal(t, tc.retry, apierr.RetryOf(info.Reason))
			}
		})
	}
}

func TestKindsWithoutReasonCarryNoDetails(t *testing.T) {
	for name, tc := range map[string]struct {
		err  error
		code codes.Code
	}{
		"unauthenticated": {apierr.Unauthenticated{Why: "no certificate"}, codes.Unauthenticated},
		"denied":          {apierr.PermissionDenied{Why: "role client"}, codes.PermissionDenied},
		"precondition":    {apierr.Precondition{Why: "no other voter"}, codes.FailedPrecondition},
		"corrupt":         {apierr.Corrupt{}, codes.DataLoss},
	} {
		t.Run(name, func(t *testing.T) {
			info, ok := apierr.From(overWire(t, tc.err))
			require.False(t, ok)
			require.Equal(t, tc.code, info.Code)
			require.Empty(t, info.Reason)
			require.Equal(t, tc.err.Error(), info.Message)
			require.Equal(t, tc.code, status.Code(info.Err()))
		})
	}
}

func TestOutOfRangeSaysTheBooksSentence(t *testing.T) {
	st, _ := status.FromError(overWire(t, apierr.OutOfRange{Offset: 42, Next: 7}))
	var msg *errdetails.LocalizedMessage
	for _, d := range st.Details() {
		if m, ok := d.(*errdetails.LocalizedMessage); ok {
			msg = m
		}
	}
	require.NotNil(t, msg)
	require.Equal(t, "en-US", msg.Locale)
	require.Equal(t, "The requested offset is outside the log's range: 42", msg.Message)
}

func TestOverloadedCarriesRetryInfo(t *testing.T) {
	info, ok := apierr.From(overWire(t, apierr.Overloaded{RetryAfter: 1500 * time.Millisecond}))
	require.True(t, ok)
	require.Equal(t, 1500*time.Millisecond, info.RetryAfter())
}

func TestStrangersErrors(t *testing.T) {
	foreign, err := status.New(codes.Unavailable, "elsewhere").WithDetails(
		&errdetails.ErrorInfo{Reason: "NOT_LEADER", Domain: "example.com"})
	require.NoError(t, err)
	newer, err := status.New(codes.Unavailable, "newer").WithDetails(
		&errdetails.ErrorInfo{Reason: "FROM_THE_FUTURE", Domain: apierr.Domain})
	require.NoError(t, err)
	huge, err := status.New(codes.ResourceExhausted, "x").WithDetails(&errdetails.ErrorInfo{
		Reason: "OVERLOADED", Domain: apierr.Domain,
		Metadata: map[string]string{"retry_after_ms": "18446744073709551615"},
	})
	require.NoError(t, err)

	t.Run("nil", func(t *testing.T) {
		info, ok := apierr.From(nil)
		require.False(t, ok)
		require.NoError(t, info.Err())
	})
	t.Run("plain error", func(t *testing.T) {
		info, ok := apierr.From(errors.New("boom"))
		require.False(t, ok)
		require.Equal(t, codes.Unknown, info.Code)
	})
	t.Run("another domain", func(t *testing.T) {
		info, ok := apierr.From(foreign.Err())
		require.False(t, ok)
		require.Equal(t, codes.Unavailable, status.Code(info.Err()))
	})
	t.Run("a reason of a later version may hide an applied batch", func(t *testing.T) {
		info, ok := apierr.From(newer.Err())
		require.True(t, ok)
		require.Equal(t, codes.Unavailable, status.Code(info.Err()))
		require.Equal(t, apierr.RetrySameSequence, apierr.RetryOf(info.Reason))
	})
	t.Run("an absurd retry delay stays positive", func(t *testing.T) {
		info, _ := apierr.From(huge.Err())
		require.Equal(t, 24*time.Hour, info.RetryAfter())
	})
}

func TestAnswered(t *testing.T) {
	for err, want := range map[error]bool{
		nil:                                   false,
		errors.New("dial"):                    false,
		context.DeadlineExceeded:              false,
		status.Error(codes.Unavailable, "x"):  false,
		apierr.Draining{}:                     true, // it is there
		apierr.PermissionDenied{Why: "no"}:    true,
		apierr.Unauthenticated{Why: "who?"}:   true,
		status.Error(codes.Unimplemented, ""): true,
	} {
		require.Equal(t, want, apierr.Answered(err), "%v", err)
	}
}
