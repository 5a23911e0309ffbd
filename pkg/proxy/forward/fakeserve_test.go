package forward_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
)

// append is the state machine.
func (c *fakeCluster) append(n *fakeNode, r *nodev1.AppendRequest) (*nodev1.AppendResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leader != n.id {
		return nil, c.notLeader()
	}
	p := c.producers[string(r.ProducerId)]
	id := fmt.Sprintf("%x/%d/%d", r.ProducerId, r.Epoch, r.FirstSequence)
	raw, _ := proto.MarshalOptions{Deterministic: true}.Marshal(r)
	if old, ok := c.seen[id]; ok && string(old) != string(raw) {
		c.t.Errorf("batch %s was sent with different bytes", id)
	}
	c.seen[id] = raw
	switch {
	case p == nil && r.FirstSequence != 0:
		return nil, apierr.UnknownProducer{}
	case p == nil:
		p = &fakeProducer{epoch: r.Epoch}
		c.producers[string(r.ProducerId)] = p
	case r.Epoch < p.epoch:
		return nil, apierr.Fenced{Epoch: p.epoch}
	case r.Epoch > p.epoch:
		if r.FirstSequence != 0 {
			return nil, apierr.SequenceGap{Want: 0, Got: r.FirstSequence}
		}
		*p = fakeProducer{epoch: r.Epoch}
	}
	resp := &nodev1.AppendResponse{FirstSequence: r.FirstSequence, Count: r.Count}
	for _, b := range p.last {
		if b.first == r.FirstSequence {
			resp.FirstOffset, resp.Duplicate = b.offset, true
			return resp, nil
		}
	}
	if r.FirstSequence != p.next {
		return nil, apierr.SequenceGap{Want: p.next, Got: r.FirstSequence}
	}
	resp.FirstOffset = uint64(len(c.records))
	if len(r.RequestKey) > 0 {
		if off, ok := c.keys[string(r.RequestKey)]; ok {
			p.next += uint64(r.Count)
			resp.FirstOffset, resp.Duplicate = off, true
			return resp, nil
		}
		c.keys[string(r.RequestKey)] = resp.FirstOffset
	}
	rest := r.Records
	for range r.Count {
		n, w := binary.Uvarint(rest)
		if w <= 0 || uint64(len(rest)-w) < n {
			return nil, apierr.Invalid{Field: "records", Why: "malformed"}
		}
		c.records = append(c.records, rest[w:w+int(n)])
		rest = rest[w+int(n):]
	}
	if len(rest) > 0 {
		return nil, apierr.Invalid{Field: "records", Why: "trailing"}
	}
	p.next += uint64(r.Count)
	p.last = append(p.last, fakeBatch{r.FirstSequence, resp.FirstOffset})
	if len(p.last) > 5 {
		p.last = p.last[1:]
	}
	c.batches = append(c.batches, int(r.Count))
	close(c.grew)
	c.grew = make(chan struct{})
	return resp, nil
}

// notLeader needs mu.
func (c *fakeCluster) notLeader() error {
	e := apierr.NotLeader{Leader: c.leader, Term: c.term}
	if c.leader != "" {
		e.Address = c.leader + ":8400"
	}
	return e
}

func (n *fakeNode) Append(s grpc.BidiStreamingServer[nodev1.AppendRequest, nodev1.AppendResponse]) error {
	md, _ := metadata.FromIncomingContext(s.Context())
	var refused <-chan error
	n.set(func() {
		n.mds = append(n.mds, md)
		n.streams++
		if n.onStream != nil {
			refused = n.onStream(md.Get("logd-original-principal")[0])
		}
	})
	select {
	case err := <-refused:
		return err
	default:
	}
	type in struct {
		r   *nodev1.AppendRequest
		err error
	}
	reqs := make(chan in)
	go func() {
		for {
			r, err := s.Recv()
			select {
			case reqs <- in{r, err}:
			case <-s.Context().Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	for {
		n.mu.Lock()
		dead := n.dead
		n.mu.Unlock()
		var q in
		select {
		case q = <-reqs:
		case err := <-refused:
			return err
		case <-dead:
			return errCut
		case <-s.Context().Done():
			return s.Context().Err()
		}
		if q.err != nil {
			if errors.Is(q.err, io.EOF) {
				return nil
			}
			return q.err
		}
		if err := n.alive(s.Context()); err != nil {
			return err
		}
		n.mu.Lock()
		before, after := n.onAppend, n.onAcked
		n.appends++
		n.mu.Unlock()
		if before != nil {
			if err := before(q.r); err != nil {
				return err
			}
		}
		resp, err := n.c.append(n, q.r)
		if err != nil {
			return err
		}
		if after != nil {
			if err := after(q.r); err != nil {
				return err
			}
		}
		if err := n.alive(s.Context()); err != nil {
			return err
		}
		if err := s.Send(resp); err != nil {
			return err
		}
	}
}

// visible is the end of n's log.
func (n *fakeNode) visible() (visible uint64, leader bool, grew chan struct{}) {
	n.mu.Lock()
	lag := n.lag
	n.mu.Unlock()
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	v := uint64(len(n.c.records))
	return v - min(v, lag), n.c.leader == n.id, n.c.grew
}

func (n *fakeNode) readable(ctx context.Context, r *nodev1.FetchRequest) error {
	v, leader, _ := n.visible()
	n.mu.Lock()
	tooOld := n.tooOld
	n.mu.Unlock()
	n.c.mu.Lock()
	lowest := max(n.c.lowest, tooOld)
	led, all := n.c.leader != "", uint64(len(n.c.records))
	notLeader := n.c.notLeader()
	n.c.mu.Unlock()
	switch {
	case r.Linearizable && !led:
		return notLeader
	case r.Linearizable && all > v: // what the leader says it has to see
		return apierr.Behind{Visible: v}
	case r.Linearizable && r.Offset >= v:
		return apierr.OutOfRange{Offset: r.Offset, Lowest: lowest, Next: v}
	case leader && r.MinPosition > v:
		return apierr.PositionUnknown{Visible: v}
	case r.MinPosition > v, !leader && r.Offset > v:
		return apierr.Behind{Visible: v}
	case r.Offset > v, r.Offset < lowest:
		return apierr.OutOfRange{Offset: r.Offset, Lowest: lowest, Next: v}
	}
	return nil
}

func (n *fakeNode) batch(first, end uint64) *nodev1.Batch {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	b := &nodev1.Batch{FirstOffset: first, Count: uint32(end - first)}
	for _, r := range n.c.records[first:end] {
		b.Records = append(binary.AppendUvarint(b.Records, uint64(len(r))), r...)
	}
	return b
}

func (n *fakeNode) began(ctx context.Context, r *nodev1.FetchRequest) error {
	if err := n.alive(ctx); err != nil {
		return err
	}
	md, _ := metadata.FromIncomingContext(ctx)
	n.mu.Lock()
	n.mds = append(n.mds, md)
	n.fetches = append(n.fetches, r)
	hook := n.onFetch
	n.mu.Unlock()
	if hook != nil {
		return hook(r)
	}
	return nil
}

func (n *fakeNode) Fetch(ctx context.Context, r *nodev1.FetchRequest) (*nodev1.FetchResponse, error) {
	if err := n.began(ctx, r); err != nil {
		return nil, err
	}
	if err := n.readable(ctx, r); err != nil {
		return nil, err
	}
	v, leader, _ := n.visible()
	if r.Offset == v {
		if leader {
			return nil, apierr.OutOfRange{Offset: r.Offset, Next: v}
		}
		return nil, apierr.Behind{Visible: v}
	}
	// Whole batches: one that begins before the offset is sent from its beginning.
	first := r.Offset - r.Offset%3
	return &nodev1.FetchResponse{Batches: []*nodev1.Batch{n.batch(first, min(first+3, v))}, Visible: v}, nil
}

func (n *fakeNode) FetchStream(r *nodev1.FetchRequest, s grpc.ServerStreamingServer[nodev1.FetchResponse]) error {
	ctx := s.Context()
	if err := n.began(ctx, r); err != nil {
		return err
	}
	if err := n.readable(ctx, r); err != nil {
		return err
	}
	at := r.Offset - r.Offset%3
	if v, _, _ := n.visible(); at == v || r.Offset == v {
		at = r.Offset
	}
	beat := time.NewTicker(time.Duration(r.HeartbeatMs) * time.Millisecond)
	defer beat.Stop()
	n.mu.Lock()
	end := n.tails
	n.mu.Unlock()
	for {
		n.mu.Lock()
		dead, edit, noBeat := n.dead, n.onBatch, n.noBeat
		n.mu.Unlock()
		if err := n.alive(ctx); err != nil {
			return err
		}
		v, _, grew := n.visible()
		if at < v {
			end := min(at+7, v)
			b := n.batch(at, end)
			if edit != nil {
				b = edit(b)
			}
			if b == nil {
				return errCut
			}
			if err := s.Send(&nodev1.FetchResponse{Batches: []*nodev1.Batch{b}, Visible: v}); err != nil {
				return err
			}
			at = end
			continue
		}
		select {
		case <-grew:
		case <-beat.C:
			if noBeat {
				continue
			}
			if err := s.Send(&nodev1.FetchResponse{Visible: v}); err != nil {
				return err
			}
		case <-end.over:
			return end.err
		case <-dead:
			return errCut
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (n *fakeNode) Offsets(ctx context.Context, r *nodev1.OffsetsRequest) (*nodev1.OffsetsResponse, error) {
	if err := n.alive(ctx); err != nil {
		return nil, err
	}
	n.mu.Lock()
	hook := n.onOffsets
	n.mu.Unlock()
	if hook != nil {
		if err := hook(); err != nil {
			return nil, err
		}
	}
	v, _, _ := n.visible()
	resp := &nodev1.OffsetsResponse{Visible: v}
	if r.Time != nil {
		resp.AtTime = proto.Uint64(v / 2)
	}
	return resp, nil
}
