package server

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/logd-io/logd/pkg/replica"
)

// traced is a batch's part in a trace. Nil, it is a batch that is not traced, and its
// methods do nothing.
type traced struct {
	ctx    context.Context //nolint:containedctx // whose span the commit's is below
	tracer trace.Tracer
	span   trace.Span // of an append; nil where the call has one
	commit replica.Commit
}

// traceCall is for the batch of a call that has a span, if that is recorded.
func (s *Server) traceCall(ctx context.Context) *traced {
	if s.tracer == nil || !trace.SpanFromContext(ctx).IsRecording() {
		return nil
	}
	return &traced{ctx: ctx, tracer: s.tracer}
}

// traceAppend is for a batch of an Append stream, by what the proxy sent along.
func (s *Server) traceAppend(parent []byte, count uint32, bytes int) *traced {
	if s.tracer == nil || len(parent) == 0 {
		return nil
	}
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{"traceparent": string(parent)})
	if !trace.SpanContextFromContext(ctx).IsSampled() {
		return nil
	}
	ctx, span := s.tracer.Start(ctx, "append", trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(attribute.Int64("logd.records", int64(count)), attribute.Int("logd.bytes", bytes)))
	return &traced{ctx: ctx, tracer: s.tracer, span: span}
}

// into is where the replica notes how the batch is committed.
func (t *traced) into() *replica.Commit {
	if t == nil {
		return nil
	}
	return &t.commit
}

// refused ends it for a batch that was not taken.
func (t *traced) refused(err error) {
	if t != nil && t.span != nil {
		t.span.SetStatus(codes.Error, err.Error())
		t.span.End()
	}
}

// settled ends it with the outcome. The commit has a span from Raft's Apply until the
// records are visible.
func (t *traced) settled(r replica.Result, err error) {
	if t == nil {
		return
	}
	if c := t.commit; c.Index != 0 {
		attrs := []attribute.KeyValue{
			attribute.Int64("raft.index", int64(c.Index)), attribute.Int64("raft.term", int64(c.Term)), attribute.Int("raft.batches", c.Batches),
		}
		if err == nil {
			attrs = append(attrs, attribute.Int64("logd.offset", int64(r.FirstOffset)), attribute.Int64("logd.records", int64(r.Count)),
				attribute.Bool("logd.duplicate", r.Duplicate))
		}
		_, span := t.tracer.Start(t.ctx, "commit", trace.WithTimestamp(c.Proposed), trace.WithAttributes(attrs...))
		span.End(trace.WithTimestamp(c.Visible))
	}
	if t.span == nil {
		return
	}
	if err != nil {
		t.span.SetStatus(codes.Error, err.Error())
	}
	t.span.End()
}
