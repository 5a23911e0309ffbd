package apierr

// Domain is the ErrorInfo domain of every error made here.
const Domain = "logd"

// Reason names the situation an error reports. It decides about a retry; the
// gRPC code does not.
type Reason string

// The reasons. What a produce may do after each is said at RetryOf.
const (
	ReasonNotLeader       Reason = "NOT_LEADER"
	ReasonDraining        Reason = "DRAINING"
	ReasonOutOfRange      Reason = "OFFSET_OUT_OF_RANGE"
	ReasonBehind          Reason = "BEHIND"
	ReasonPositionUnknown Reason = "POSITION_UNKNOWN"
	ReasonOutcomeUnknown  Reason = "OUTCOME_UNKNOWN"
	ReasonNotSent         Reason = "NOT_SENT"
	ReasonInvalid         Reason = "INVALID"
	ReasonOverloaded      Reason = "OVERLOADED"
	ReasonSequenceGap     Reason = "SEQUENCE_GAP"
	ReasonFenced          Reason = "FENCED"
	ReasonUnknownProducer Reason = "UNKNOWN_PRODUCER"
	ReasonResumeFailed    Reason = "RESUME_FAILED"
	ReasonFailed          Reason = "FAILED" // of administration only
)

// Keys of the ErrorInfo metadata. Numbers are decimal.
const (
	KeyLeader       = "leader"         // node id, empty when none is known
	KeyAddress      = "address"        // host:port of the leader's RPC listener
	KeyTerm         = "term"           // Raft term
	KeyOffset       = "offset"         // the offset that was asked for
	KeyLowest       = "lowest"         // first readable offset
	KeyNext         = "next"           // offset after the last readable one
	KeyVisible      = "visible"        // the answering node's next offset
	KeyWant         = "want"           // the sequence number that would have been accepted
	KeyGot          = "got"            // the sequence number that was sent
	KeyEpoch        = "epoch"          // the producer's current epoch
	KeyField        = "field"          // the request field that is wrong
	KeyRetryAfterMS = "retry_after_ms" // milliseconds
	KeyLimit        = "limit"          // the rate that the caller is past, by the name of its setting
)

// Retry says what may be done with a produce that ended in an error.
type Retry uint8

const (
	// RetryNever: the same request fails again, or its outcome cannot be settled.
	RetryNever Retry = iota
	// RetryElsewhere: certainly not applied; another node may take it now.
	RetryElsewhere
	// RetryLater: certainly not applied; this node may take it after a pause.
	RetryLater
	// RetrySameSequence: perhaps applied; only the same producer id, epoch and
	// sequence may be sent again.
	RetrySameSequence
)

// RetryOf says what a producer may do after a refusal with reason r. An unknown
// reason, and a status without one, may hide an applied batch.
func RetryOf(r Reason) Retry {
	switch r {
	case ReasonNotLeader, ReasonDraining, ReasonNotSent:
		return RetryElsewhere
	case ReasonOverloaded, ReasonFailed:
		return RetryLater
	case ReasonInvalid, ReasonFenced, ReasonUnknownProducer, ReasonSequenceGap,
		ReasonOutOfRange, ReasonBehind, ReasonPositionUnknown, ReasonResumeFailed:
		return RetryNever
	default:
		return RetrySameSequence
	}
}
