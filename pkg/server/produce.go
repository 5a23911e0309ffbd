package server

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/replica"
)

const (
	// produceWindow is how many records of a ProduceStream may be unacknowledged, and
	// produceBytes of how many bytes: a sixteenth of what a node has in flight, by
	// default.
	produceWindow = 1024
	produceBytes  = 2 << 20
	// appendWindow is how many batches of an Append stream may be. A proxy keeps
	// to five, of 256 KiB or of one record.
	appendWindow = 16
	appendBytes  = 8 << 20
	// appendPatience is how long a batch on it may wait for its principal's rate. A
	// proxy takes a leader that is silent for three seconds to be gone; one that says
	// OVERLOADED it asks again when told, with the same sequences.
	appendPatience = time.Second
	// maxRequestID bounds logd-request-id in bytes.
	maxRequestID = 512
)

// one makes a batch of the single record in a ProduceRequest.
func (s *Server) one(in []byte) (replica.Batch, error) {
	rec, err := produceRecord(in)
	if err != nil {
		return replica.Batch{}, err
	}
	f, err := inspect(rec, s.cfg.MaxRecordBytes)
	if err != nil {
		return replica.Batch{}, malformed("record", err)
	}
	now := s.cfg.Clock().UnixNano()
	buf := make([]byte, 0, len(rec)+stampBytes+protowire.SizeVarint(uint64(len(rec))))
	return replica.Batch{Count: 1, Records: appendStored(buf, rec, f, now), Timestamp: now}, nil
}

// requestKey is the hash of the principal and its request id; zero without one.
// A proxy makes the same key, so that a client may repeat a request through one
// and without one.
func requestKey(ctx context.Context) (key [16]byte, err error) {
	ids := metadata.ValueFromIncomingContext(ctx, metaRequestID)
	if len(ids) == 0 {
		return key, nil
	}
	if len(ids) != 1 || ids[0] == "" || len(ids[0]) > maxRequestID {
		return key, apierr.Invalid{Field: metaRequestID, Why: fmt.Sprintf("exactly one, of 1 to %d bytes", maxRequestID)}
	}
	principal := callerOf(ctx).principal
	h := sha256.New()
	fmt.Fprintf(h, "%d:%s%s", len(principal), principal, ids[0])
	copy(key[:], h.Sum(nil))
	return key, nil
}

// produce answers Log.Produce.
func (s *Server) produce(ctx context.Context, in []byte) (*frame, error) {
	batch, err := s.one(in)
	if err != nil {
		return nil, err
	}
	if batch.Key, err = requestKey(ctx); err != nil {
		return nil, err
	}
	who := callerOf(ctx)
	if err := who.rates.Produce(who.principal, len(in)); err != nil {
		return nil, err
	}
	t := s.traceCall(ctx)
	batch.Commit = t.into()
	p, err := s.replica.Submit(batch)
	if err != nil {
		return nil, err
	}
	select {
	case <-p.Done():
	case <-ctx.Done():
		return nil, apierr.OutcomeUnknown{}
	}
	r, err := p.Result()
	t.settled(r, err)
	if err != nil {
		return nil, settled(err)
	}
	return produceResponse(r.FirstOffset), nil
}

// pace makes what comes on a stream wait for the rates of its caller, each message
// most at most (0: as long as it takes). It is nil when there are none.
func (c caller) pace(most time.Duration) func(ctx context.Context, n int) error {
	if c.rates == nil {
		return nil
	}
	return func(ctx context.Context, n int) error { return c.rates.Message(ctx, c.principal, n, most) }
}

// produceStream answers Log.ProduceStream. A request id on a stream would name
// all of its records, so it is refused.
func (s *Server) produceStream(stream grpc.ServerStream) error {
	if len(metadata.ValueFromIncomingContext(stream.Context(), metaRequestID)) > 0 {
		return apierr.Invalid{Field: metaRequestID, Why: "names one record; a stream has many"}
	}
	pace := callerOf(stream.Context()).pace(0)
	return newPipeline(produceWindow, produceBytes, pace, func(in []byte) (submitted, error) {
		batch, err := s.one(in)
		if err != nil {
			return submitted{}, err
		}
		t := s.traceCall(stream.Context())
		batch.Commit = t.into()
		p, err := s.replica.Submit(batch)
		return submitted{count: 1, pending: p, trace: t}, err
	}, func(_ submitted, r replica.Result) *frame {
		return produceResponse(r.FirstOffset)
	}).run(s, stream)
}

// appendStream answers Node.Append. Whose producer ids these are is settled when
// the stream opens.
func (s *Server) appendStream(stream grpc.ServerStream) error {
	who := callerOf(stream.Context())
	owner := who.owner()
	return newPipeline(appendWindow, appendBytes, who.pace(appendPatience), func(in []byte) (submitted, error) {
		r, err := parseAppend(in)
		if err != nil {
			return submitted{}, err
		}
		now := s.cfg.Clock().UnixNano()
		records, err := storedBatch(r.records, r.count, s.cfg.MaxRecordBytes, now)
		if err != nil {
			return submitted{}, err
		}
		t := s.traceAppend(r.trace, r.count, len(records))
		p, err := s.replica.Submit(replica.Batch{
			Producer: r.producer, Owner: owner, Epoch: r.epoch, FirstSeq: r.firstSeq,
			Count: r.count, Key: r.key, Records: records, Timestamp: now, Commit: t.into(),
		})
		if err != nil {
			t.refused(err)
		}
		return submitted{seq: r.firstSeq, count: r.count, pending: p, trace: t}, err
	}, func(b submitted, r replica.Result) *frame {
		return appendResponse(b.seq, r.FirstOffset, b.count, r.Duplicate)
	}).run(s, stream)
}
