package forward

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// spanOf is the span of a client's call, if it is recorded; nil otherwise, and always
// when nothing is traced.
func (f *Forwarder) spanOf(ctx context.Context) trace.Span {
	if f.cfg.Tracer == nil {
		return nil
	}
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		return span
	}
	return nil
}

// begin starts the batch's span, if a call that waits for it has one: below the first of
// them, and with a link to each. The ops are in flight, so nobody else touches them.
func (b *batch) begin(tracer trace.Tracer) {
	if tracer == nil {
		return
	}
	var first, last trace.Span
	var links []trace.Link
	for _, o := range b.ops {
		if o.span == nil || o.span == last { // a stream's records come side by side
			continue
		}
		if last = o.span; first == nil {
			first = last
		}
		links = append(links, trace.Link{SpanContext: last.SpanContext()})
	}
	if first == nil {
		return
	}
	ctx, span := tracer.Start(trace.ContextWithSpan(context.Background(), first), "append batch",
		trace.WithSpanKind(trace.SpanKindClient), trace.WithLinks(links...),
		trace.WithAttributes(attribute.Int("logd.records", int(b.count)), attribute.Int("logd.bytes", b.bytes)))
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	b.span, b.parent = span, carrier["traceparent"]
}

// sentTo notes on the batch's span that it goes to a node now.
func (b *batch) sentTo(node string) {
	if b.span != nil {
		b.span.AddEvent("sent", trace.WithAttributes(attribute.String("logd.upstream", node)))
	}
}

// over ends the batch's span: appended at offset by that node, or why not.
func (b *batch) over(node string, offset uint64, duplicate bool) {
	if b.span != nil {
		b.span.SetAttributes(attribute.String("logd.upstream", node), attribute.Int64("logd.offset", int64(offset)), attribute.Bool("logd.duplicate", duplicate))
		b.span.End()
		b.span = nil
	}
}

// gaveUp ends the span of a batch that has no outcome of its own.
func (b *batch) gaveUp(why string) {
	if b.span != nil {
		b.span.SetStatus(codes.Error, why)
		b.span.End()
		b.span = nil
	}
}

// segment starts the span of a stretch of consume streams on one node. It is below the
// stream that the fetch was begun for, and has a link to each that reads along by now.
func (p *fetch) segment(ctx context.Context, node string) (context.Context, func(error)) {
	tracer := p.hub.fan.f.cfg.Tracer
	if tracer == nil {
		return ctx, func(error) {}
	}
	p.hub.mu.Lock()
	spans := make([]trace.Span, 0, len(p.spans))
	for span := range p.spans {
		spans = append(spans, span)
	}
	p.hub.mu.Unlock()
	if len(spans) == 0 {
		return ctx, func(error) {}
	}
	links := make([]trace.Link, len(spans))
	for i, s := range spans {
		links[i].SpanContext = s.SpanContext()
	}
	ctx, span := tracer.Start(trace.ContextWithSpan(ctx, spans[0]), "stream segment", trace.WithLinks(links...),
		trace.WithAttributes(attribute.String("logd.upstream", node), attribute.Int64("logd.offset", int64(p.at))))
	return ctx, func(err error) {
		span.SetAttributes(attribute.Int64("logd.next_offset", int64(p.at)))
		if err != nil {
			span.AddEvent("moves on", trace.WithAttributes(attribute.String("why", err.Error())))
		}
		span.End()
	}
}
