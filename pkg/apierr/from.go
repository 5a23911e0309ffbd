package apierr

import (
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Info is what a status says about an error, as it came.
type Info struct {
	Code     codes.Code
	Reason   Reason // empty when the status has no ErrorInfo of ours
	Message  string
	Metadata map[string]string // not to be changed

	retryAfter time.Duration
}

// From reads err, which may be a gRPC status, wrap one, or be a value of this
// package. ok is false when it carries no reason of ours; Code and Message are
// filled all the same (codes.Unknown for an error that is no status).
func From(err error) (info Info, ok bool) {
	st, _ := status.FromError(err)
	if st == nil {
		return Info{}, false
	}
	info = Info{Code: st.Code(), Message: st.Message()}
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			// The first one counts: what a proxy adds later does not change the reason.
			if d.GetDomain() == Domain && !ok {
				info.Reason, info.Metadata, ok = Reason(d.GetReason()), d.GetMetadata(), true
			}
		case *errdetails.RetryInfo:
			info.retryAfter = d.GetRetryDelay().AsDuration()
		}
	}
	return info, ok
}

// ReasonOf is From for callers that need the reason only.
func ReasonOf(err error) Reason {
	info, _ := From(err)
	return info.Reason
}

// Uint is the number under key; ok is false when it is absent or no number.
func (i Info) Uint(key string) (n uint64, ok bool) {
	n, err := strconv.ParseUint(i.Metadata[key], 10, 64)
	return n, err == nil
}

// RetryAfter is how long the answerer asks to wait, 0 when it does not say. It
// is not negative.
func (i Info) RetryAfter() time.Duration {
	if i.retryAfter > 0 {
		return i.retryAfter
	}
	const most = uint64(24 * time.Hour / time.Millisecond)
	ms, _ := i.Uint(KeyRetryAfterMS)
	return time.Duration(min(ms, most)) * time.Millisecond
}

// Err is the typed value that was sent. Numbers that did not come are zero. A
// status without a reason of ours, or with one this version does not know,
// comes back as a plain status error; nil for codes.OK.
func (i Info) Err() error {
	u := func(key string) uint64 { n, _ := i.Uint(key); return n }
	switch i.Reason {
	case ReasonNotLeader:
		return NotLeader{Leader: i.Metadata[KeyLeader], Address: i.Metadata[KeyAddress], Term: u(KeyTerm)}
	case ReasonDraining:
		return Draining{}
	case ReasonOutOfRange:
		return OutOfRange{Offset: u(KeyOffset), Lowest: u(KeyLowest), Next: u(KeyNext)}
	case ReasonBehind:
		return Behind{Visible: u(KeyVisible)}
	case ReasonPositionUnknown:
		return PositionUnknown{Visible: u(KeyVisible)}
	case ReasonOutcomeUnknown:
		return OutcomeUnknown{}
	case ReasonNotSent:
		return NotSent{}
	case ReasonFailed:
		return Failed{Why: i.Message}
	case ReasonInvalid:
		field := i.Metadata[KeyField]
		why := i.Message
		if prefix := field + ": "; field != "" && len(why) >= len(prefix) && why[:len(prefix)] == prefix {
			why = why[len(prefix):]
		}
		return Invalid{Field: field, Why: why}
	case ReasonOverloaded:
		why, _, _ := strings.Cut(i.Message, "; retry after ")
		if why == anyLimit {
			why = ""
		}
		return Overloaded{RetryAfter: i.RetryAfter(), Why: why, Limit: i.Metadata[KeyLimit]}
	case ReasonSequenceGap:
		return SequenceGap{Want: u(KeyWant), Got: u(KeyGot)}
	case ReasonFenced:
		return Fenced{Epoch: uint32(u(KeyEpoch))}
	case ReasonUnknownProducer:
		return UnknownProducer{}
	case ReasonResumeFailed:
		return ResumeFailed{Offset: u(KeyOffset)}
	}
	switch i.Code {
	case codes.Unauthenticated:
		return Unauthenticated{Why: i.Message}
	case codes.PermissionDenied:
		return PermissionDenied{Why: i.Message}
	}
	return status.Error(i.Code, i.Message)
}

// Answered reports that a server said this error: it was there, and did not do what was
// asked. An error of the connection, or of a deadline, says nothing about the server.
func Answered(err error) bool {
	info, ours := From(err)
	switch info.Code {
	case codes.OK, codes.Unknown, codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return ours
	}
	return true
}
