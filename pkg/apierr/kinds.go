package apierr

import (
	"cmp"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
)

// NotLeader refuses what only the leader does. It says who leads, as far as the
// node knows; Leader and Address are empty when it does not.
type NotLeader struct {
	Leader  string // node id
	Address string // host:port
	Term    uint64
}

func (e NotLeader) Error() string {
	if e.Leader == "" {
		return fmt.Sprintf("not the leader; no leader known at term %d", e.Term)
	}
	return fmt.Sprintf("not the leader; %s (%s) leads term %d", e.Leader, e.Address, e.Term)
}

// GRPCStatus is the value on the wire.
func (e NotLeader) GRPCStatus() *status.Status {
	return build(codes.FailedPrecondition, ReasonNotLeader, e.Error(), map[string]string{
		KeyLeader: e.Leader, KeyAddress: e.Address, KeyTerm: num(e.Term),
	})
}

// Draining says the node is shutting down or not ready yet.
type Draining struct{}

func (Draining) Error() string { return "the node is shutting down or not ready" }

// GRPCStatus is the value on the wire.
func (e Draining) GRPCStatus() *status.Status {
	return build(codes.Unavailable, ReasonDraining, e.Error(), nil)
}

// OutOfRange says that Offset is outside the readable range [Lowest, Next).
type OutOfRange struct{ Offset, Lowest, Next uint64 }

func (e OutOfRange) Error() string {
	return fmt.Sprintf("offset %d outside [%d, %d)", e.Offset, e.Lowest, e.Next)
}

// GRPCStatus is the value on the wire, with the sentence book clients show.
func (e OutOfRange) GRPCStatus() *status.Status {
	return build(codes.OutOfRange, ReasonOutOfRange, e.Error(), map[string]string{
		KeyOffset: num(e.Offset), KeyLowest: num(e.Lowest), KeyNext: num(e.Next),
	}, &errdetails.LocalizedMessage{
		Locale:  "en-US",
		Message: fmt.Sprintf("The requested offset is outside the log's range: %d", e.Offset),
	})
}

// Behind says that the node has not reached the asked position. Another node
// may have.
type Behind struct{ Visible uint64 }

func (e Behind) Error() string {
	return fmt.Sprintf("behind the asked position; readable up to %d", e.Visible)
}

// GRPCStatus is the value on the wire.
func (e Behind) GRPCStatus() *status.Status {
	return build(codes.Unavailable, ReasonBehind, e.Error(), map[string]string{KeyVisible: num(e.Visible)})
}

// PositionUnknown is the leader's word that the asked position does not exist.
// No other node has it either.
type PositionUnknown struct{ Visible uint64 }

func (e PositionUnknown) Error() string {
	return fmt.Sprintf("the asked position does not exist; the log ends at %d", e.Visible)
}

// GRPCStatus is the value on the wire.
func (e PositionUnknown) GRPCStatus() *status.Status {
	return build(codes.FailedPrecondition, ReasonPositionUnknown, e.Error(),
		map[string]string{KeyVisible: num(e.Visible)})
}

// OutcomeUnknown says that the batch may or may not have been appended.
type OutcomeUnknown struct{}

func (OutcomeUnknown) Error() string { return "the outcome is unknown; it may have taken effect" }

// GRPCStatus is the value on the wire.
func (e OutcomeUnknown) GRPCStatus() *status.Status {
	return build(codes.Aborted, ReasonOutcomeUnknown, e.Error(), nil)
}

// NotSent says that the request never reached a leader.
type NotSent struct{}

func (NotSent) Error() string { return "not sent; no leader took the request" }

// GRPCStatus is the value on the wire.
func (e NotSent) GRPCStatus() *status.Status {
	return build(codes.Unavailable, ReasonNotSent, e.Error(), nil)
}

// Invalid refuses a request for its content. Field is the request's field by
// its proto path, and Why completes the sentence "<field>: ...".
type Invalid struct{ Field, Why string }

func (e Invalid) Error() string {
	if e.Field == "" {
		return e.Why
	}
	return e.Field + ": " + e.Why
}

// GRPCStatus is the value on the wire.
func (e Invalid) GRPCStatus() *status.Status {
	return build(codes.InvalidArgument, ReasonInvalid, e.Error(), map[string]string{KeyField: e.Field})
}

// Overloaded says that a limit or the disk reserve is reached. RetryAfter is
// carried in whole milliseconds. Why may say which, and what to do about it.
type Overloaded struct {
	RetryAfter time.Duration
	Why        string
	// Limit is the setting of the rate that this principal is past, and empty for
	// every other limit: with one it is the caller's doing, and not the server's.
	Limit string
}

func (e Overloaded) Error() string {
	return fmt.Sprintf("%s; retry after %s", cmp.Or(e.Why, anyLimit), e.RetryAfter)
}

// anyLimit is what is said of a limit that is not named.
const anyLimit = "a limit is reached"

// GRPCStatus is the value on the wire, with a RetryInfo.
func (e Overloaded) GRPCStatus() *status.Status {
	md := map[string]string{KeyRetryAfterMS: strconv.FormatInt(e.RetryAfter.Milliseconds(), 10)}
	if e.Limit != "" {
		md[KeyLimit] = e.Limit
	}
	return build(codes.ResourceExhausted, ReasonOverloaded, e.Error(), md,
		&errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)})
}

// SequenceGap says that a batch came with a sequence number the producer's
// history does not lead to.
type SequenceGap struct{ Want, Got uint64 }

func (e SequenceGap) Error() string {
	return fmt.Sprintf("sequence gap: want %d, got %d", e.Want, e.Got)
}

// GRPCStatus is the value on the wire.
func (e SequenceGap) GRPCStatus() *status.Status {
	return build(codes.FailedPrecondition, ReasonSequenceGap, e.Error(),
		map[string]string{KeyWant: num(e.Want), KeyGot: num(e.Got)})
}

// Fenced says that the producer's epoch is over: Epoch is the current one.
type Fenced struct{ Epoch uint32 }

func (e Fenced) Error() string { return fmt.Sprintf("fenced: the producer's epoch is %d", e.Epoch) }

// GRPCStatus is the value on the wire.
func (e Fenced) GRPCStatus() *status.Status {
	return build(codes.FailedPrecondition, ReasonFenced, e.Error(), map[string]string{KeyEpoch: num(uint64(e.Epoch))})
}

// UnknownProducer says that the log has forgotten the producer id, or never
// knew it, and the batch does not start at sequence 0.
type UnknownProducer struct{}

func (UnknownProducer) Error() string { return "unknown producer id" }

// GRPCStatus is the value on the wire.
func (e UnknownProducer) GRPCStatus() *status.Status {
	return build(codes.FailedPrecondition, ReasonUnknownProducer, e.Error(), nil)
}

// ResumeFailed ends a consume stream that could not be continued at exactly
// Offset, rather than leave a gap or repeat a record.
type ResumeFailed struct{ Offset uint64 }

func (e ResumeFailed) Error() string {
	return fmt.Sprintf("the stream could not be resumed at offset %d", e.Offset)
}

// GRPCStatus is the value on the wire.
func (e ResumeFailed) GRPCStatus() *status.Status {
	return build(codes.DataLoss, ReasonResumeFailed, e.Error(), map[string]string{KeyOffset: num(e.Offset)})
}

// Unauthenticated says that the caller has no identity. It carries no reason.
type Unauthenticated struct{ Why string }

func (e Unauthenticated) Error() string { return e.Why }

// GRPCStatus is the value on the wire.
func (e Unauthenticated) GRPCStatus() *status.Status { return status.New(codes.Unauthenticated, e.Why) }

// PermissionDenied says that the caller may not do this. It carries no reason.
type PermissionDenied struct{ Why string }

func (e PermissionDenied) Error() string { return e.Why }

// GRPCStatus is the value on the wire.
func (e PermissionDenied) GRPCStatus() *status.Status {
	return status.New(codes.PermissionDenied, e.Why)
}

// Precondition says that this cannot be done as things stand, and that another attempt
// would end likewise. It carries no reason.
type Precondition struct{ Why string }

func (e Precondition) Error() string { return e.Why }

// GRPCStatus is the value on the wire.
func (e Precondition) GRPCStatus() *status.Status {
	return status.New(codes.FailedPrecondition, e.Why)
}

// Failed says that an operation on the cluster did not work now, and had no effect.
type Failed struct{ Why string }

func (e Failed) Error() string { return e.Why }

// GRPCStatus is the value on the wire.
func (e Failed) GRPCStatus() *status.Status {
	return build(codes.Unavailable, ReasonFailed, e.Error(), nil)
}

// Corrupt says that data is damaged. It tells the caller nothing more: place
// and kind of the damage belong in the node's log.
type Corrupt struct{}

func (Corrupt) Error() string { return "data loss" }

// GRPCStatus is the value on the wire.
func (e Corrupt) GRPCStatus() *status.Status { return status.New(codes.DataLoss, e.Error()) }

func num(n uint64) string { return strconv.FormatUint(n, 10) }

// build makes a status with an ErrorInfo first and extra after it.
func build(c codes.Code, r Reason, msg string, md map[string]string, extra ...protoadapt.MessageV1) *status.Status {
	details := append([]protoadapt.MessageV1{&errdetails.ErrorInfo{
		Reason: string(r), Domain: Domain, Metadata: md,
	}}, extra...)
	st, err := status.New(c, msg).WithDetails(details...)
	if err != nil { // only for code OK or a message that does not marshal: ours never
		panic(fmt.Sprintf("apierr: status for %s: %v", r, err))
	}
	return st
}
