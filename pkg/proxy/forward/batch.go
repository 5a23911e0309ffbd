package forward

import (
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
)

// Field numbers of node.v1.AppendRequest.
const (
	appendProducer   = 1
	appendEpoch      = 2
	appendFirstSeq   = 3
	appendCount      = 4
	appendRecords    = 5
	appendRequestKey = 6
	appendTrace      = 7
)

// batch is up to a window's element of records under consecutive sequence
// numbers. From the moment it is first sent until its outcome is known its bytes
// stay the same, and it is sent again as they are.
//
//	AppendRequest = head (all fields but the records, then field 5's tag and length) | records
type batch struct {
	// Set once, by the sender that builds it.
	head    mem.Buffer
	records mem.Buffer // count times {uvarint length, record}
	parent  string     // the traceparent; empty: it is not traced
	span    trace.Span // begun by that sender, too; ended under the appender's mu; nil: none

	// Guarded by the appender's mu.
	ops     []*op // by record; nil where the outcome has been told already
	first   uint64
	count   uint32
	bytes   int   // of records
	built   bool  // head and records are set
	sent    bool  // on the stream that is open now
	tainted bool  // an attempt ended without an outcome: it may be appended
	sentAt  int64 // the last time; until the first one when it was made
	// kept is the bytes of records whose clients were told already, which count in the
	// bounds as long as the batch is here: of all, and of streams.
	kept, keptOfStreams load
}

// message is the batch ready to be sent once more, with references of its own, so
// that it outlives the batch. The appender's mu is held.
func (b *batch) message() *encodedMessage {
	b.head.Ref()
	b.records.Ref()
	return &encodedMessage{data: mem.BufferSlice{b.head, b.records}}
}

func (b *batch) free() {
	if b.head != nil {
		b.head.Free()
		b.records.Free()
	}
	b.head, b.records = nil, nil
}

// build copies the ops' records and lets their own buffers go. The ops are in
// flight, so nobody else touches either.
func (b *batch) build(producer [16]byte, epoch uint32) {
	recs := fetchBuffers.Get(b.bytes) // at most twice that, where gRPC's own take 1 MiB
	out := (*recs)[:0]
	var key []byte
	for _, o := range b.ops {
		out = protowire.AppendBytes(out, o.rec)
		if o.keyed {
			key = o.key[:]
		}
		o.release()
	}
	*recs = out
	b.records = mem.NewBuffer(recs, &fetchBuffers)

	h := make([]byte, 0, 80+len(b.parent))
	h = protowire.AppendTag(h, appendProducer, protowire.BytesType)
	h = protowire.AppendBytes(h, producer[:])
	h = protowire.AppendTag(h, appendEpoch, protowire.VarintType)
	h = protowire.AppendVarint(h, uint64(epoch))
	h = protowire.AppendTag(h, appendFirstSeq, protowire.VarintType)
	h = protowire.AppendVarint(h, b.first)
	h = protowire.AppendTag(h, appendCount, protowire.VarintType)
	h = protowire.AppendVarint(h, uint64(b.count))
	if key != nil {
		h = protowire.AppendTag(h, appendRequestKey, protowire.BytesType)
		h = protowire.AppendBytes(h, key)
	}
	if b.parent != "" {
		h = protowire.AppendTag(h, appendTrace, protowire.BytesType)
		h = protowire.AppendString(h, b.parent)
	}
	h = protowire.AppendTag(h, appendRecords, protowire.BytesType)
	h = protowire.AppendVarint(h, uint64(b.bytes))
	b.head = mem.SliceBuffer(h)
}

// unbuild gives the ops their records back, as parts of the batch's bytes.
func (b *batch) unbuild() {
	rest := b.records.ReadOnlyData()
	for _, o := range b.ops {
		rec, n := protowire.ConsumeBytes(rest)
		if n < 0 {
			panic("forward: a batch of our own making is malformed")
		}
		rest = rest[n:]
		if o != nil {
			b.records.Ref()
			o.buf, o.rec = b.records, rec
		}
	}
}

// acknowledgedBy says whether the response is about this batch.
func (b *batch) acknowledgedBy(r *nodev1.AppendResponse) bool {
	return b.sent && r.GetFirstSequence() == b.first && r.GetCount() == b.count
}
