package forward

import (
	"context"
	"errors"
	"math"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/proxy/route"
)

// How long a node may wait before it says BEHIND. A read that may be asking for the
// end of the log should get to the leader, who alone says so, soon.
const (
	waitForPosition = 50 * time.Millisecond
	waitAtEnd       = 5 * time.Millisecond
)

// longEnough is the time that a node had to be given for it to be to blame, and not
// the client, when the client's deadline passes.
const longEnough = 250 * time.Millisecond

// sameMoment is how much earlier than here a node may see a deadline pass: it has it
// rounded, and by its own clock.
const sameMoment = 10 * time.Millisecond

// errNoNode means that no node is left to try for now.
var errNoNode = errors.New("no node to read from")

// reader is one read's way through the nodes: by policy among the followers, then
// the leader, then again when there is a newer table or after a pause.
type reader struct {
	f     *Forwarder
	key   string
	skip  []string // ids not to be tried again with table
	table *route.Table
	// leaderOnly is set when a follower said what only the leader may tell a client.
	leaderOnly bool
	// linear is set for a linearizable read: a node that answers it has come as far as
	// the leader had, and may say what otherwise only the leader may.
	linear bool
	rounds int
	by     *string // takes the id of the node that was asked last; may be nil
}

func (f *Forwarder) reader(key string) *reader {
	return &reader{f: f, key: key, table: f.cfg.Holder.Load()}
}

// routingKey is what the client wants kept together; empty when it does not say.
func routingKey(ctx context.Context) string {
	if v := metadata.ValueFromIncomingContext(ctx, mdRoutingKey); len(v) > 0 {
		return v[0]
	}
	return ""
}

func (r *reader) skips(id string) bool {
	for _, s := range r.skip {
		if s == id {
			return true
		}
	}
	return false
}

// next picks a node, or answers errNoNode when all have been tried.
func (r *reader) next() (up route.Upstream, isLeader bool, err error) {
	lead := r.table.Leader
	ok := false
	if r.leaderOnly {
		up, ok = lead, lead != nil && !r.skips(lead.ID())
	} else {
		up, ok = r.table.PickReader(r.key, r.skips)
	}
	if !ok {
		return nil, false, errNoNode
	}
	return up, lead != nil && up.ID() == lead.ID(), nil
}

// rest waits for a newer table or a pause, and then all nodes may be tried again.
func (r *reader) rest(ctx context.Context) error {
	r.rounds++
	pause := backoff(r.rounds)
	if !r.f.reads.spend(r.f.now()) {
		pause = backoffMost
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	wake := timer.C
	if r.table.Leader == nil && (r.leaderOnly || len(r.table.Followers) == 0) {
		wake = nil // nothing can come of trying again with this table
	}
	select {
	case <-wake:
	case <-r.table.Superseded():
	case <-r.f.ending.Done():
		return apierr.Draining{}
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	r.table = r.f.cfg.Holder.Load()
	r.skip = r.skip[:0]
	return nil
}

// reload looks at the newest table, without another chance for the nodes tried.
func (r *reader) reload() { r.table = r.f.cfg.Holder.Load() }

// outOfTable says whether up, which is being read from, is not in the newest table,
// which has another. It is for every message: only a table it has not seen is looked at.
func (r *reader) outOfTable(up route.Upstream) bool {
	t := r.f.cfg.Holder.Load()
	if t == r.table {
		return false
	}
	r.table = t
	is := func(id string) bool { return id == up.ID() }
	if t.Leader != nil && is(t.Leader.ID()) {
		return false
	}
	for _, f := range t.Followers {
		if is(f.ID()) {
			return false
		}
	}
	if r.leaderOnly {
		return t.Leader != nil
	}
	_, another := t.PickReader(r.key, is)
	return another
}

// verdict on a failed try of a read.
type readVerdict int

const (
	readElsewhere readVerdict = iota
	readLeader                // only the leader may say so
	readFinal                 // the client is told
)

// ownWord says whether err is a node's word on what it was asked, and not that it has
// failed: an answer that was not the wanted one.
func ownWord(err error) bool {
	info, ok := apierr.From(err)
	if ok {
		return true
	}
	switch info.Code {
	case codes.DataLoss, codes.PermissionDenied, codes.Unauthenticated, codes.InvalidArgument, codes.Unimplemented:
		return true
	}
	return false
}

// judge says what a node's error means for the read, and passes on what it means
// for the node.
func (r *reader) judge(up route.Upstream, isLeader bool, err error) readVerdict {
	switch {
	case errors.Is(err, errBroken):
		return readElsewhere // a node may close its streams at will
	case !ownWord(err):
		r.f.cfg.Hints.Failed(up.ID(), err)
		return readElsewhere
	}
	up.Answered()
	info, _ := apierr.From(err)
	switch info.Reason {
	case apierr.ReasonOutOfRange:
		if isLeader || r.linear {
			return readFinal
		}
		return readLeader
	case apierr.ReasonBehind:
		r.f.metrics.sessionWaits.Inc()
		return readElsewhere
	case apierr.ReasonPositionUnknown:
		if isLeader {
			return readFinal
		}
		return readLeader
	case apierr.ReasonNotLeader:
		var nl apierr.NotLeader
		_ = errors.As(info.Err(), &nl)
		r.f.cfg.Hints.NotLeader(up.ID(), nl.Leader, nl.Address, nl.Term)
		return readElsewhere
	case apierr.ReasonDraining, apierr.ReasonOverloaded:
		return readElsewhere
	}
	if info.Reason == "" && info.Code == codes.DataLoss {
		// What was asked for is damaged there, until the node has repaired it. The
		// rest of what it has is as good as anybody's: it need not rest.
		return readElsewhere
	}
	return readFinal
}

// each tries nodes with call until one answers, one's error is the client's, or
// ctx ends.
func (r *reader) each(ctx context.Context, call func(ctx context.Context, up route.Upstream, isLeader bool) error) error {
	var last error
	for tries := 0; ; {
		up, isLeader, err := r.next()
		if err != nil {
			if err := r.rest(ctx); err != nil {
				return readError(ctx, err, last)
			}
			continue
		}
		if tries++; tries > 1 {
			r.f.metrics.readRetries.Inc()
		}
		try, cancel := context.WithTimeout(r.f.ours(ctx), r.f.cfg.AttemptTimeout)
		deadline, _ := ctx.Deadline() // there is one: ctx is bounded
		patient := time.Until(deadline) >= longEnough
		if r.by != nil {
			*r.by = up.ID()
		}
		release := up.Acquire()
		err = call(try, up, isLeader)
		release()
		cancel()
		if status.Code(err) == codes.DeadlineExceeded && time.Until(deadline) <= sameMoment {
			<-ctx.Done() // the node saw the client's deadline pass a little before us
		}
		if err == nil {
			up.Answered()
			r.f.reads.done(1)
			return nil
		}
		if ctx.Err() != nil {
			if patient && errors.Is(ctx.Err(), context.DeadlineExceeded) {
				r.f.cfg.Hints.Failed(up.ID(), err)
			}
			return readError(ctx, context.Cause(ctx), last)
		}
		last = err
		if info, _ := apierr.From(err); info.Metadata[apierr.KeyLimit] != "" {
			// Its principal is past a rate: the other nodes soon would say so too, and
			// the retries are everybody's.
			up.Answered()
			return refusal(err)
		}
		switch r.judge(up, isLeader, err) {
		case readFinal:
			return refusal(err)
		case readLeader:
			r.leaderOnly = true
		}
		r.skip = append(r.skip, up.ID())
	}
}

// readError is what a client whose read ran out of time is told: what the last node
// said, when that was one of ours, or that nobody could be asked.
func readError(ctx context.Context, err, last error) error {
	if errors.Is(err, context.Canceled) {
		return status.FromContextError(err).Err()
	}
	if info, ok := apierr.From(last); ok {
		if info.Reason == apierr.ReasonNotLeader {
			return apierr.NotSent{} // who leads is nothing to a proxy's client
		}
		return info.Err()
	}
	if _, ok := apierr.From(err); ok {
		return err
	}
	return apierr.NotSent{}
}

// bounded is ctx with the time a unary read may take: a little less than the
// client's, and never more than the hold timeout.
func (f *Forwarder) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	left := f.cfg.HoldTimeout
	if dl, ok := ctx.Deadline(); ok {
		left = min(left, shorten(time.Until(dl)))
	}
	return context.WithTimeout(ctx, left)
}

// ours is ctx for a call to a node, which says of which cluster the answer is to be.
// It is said when the call begins: a node of another cluster, at an address that
// control still takes for one of ours, refuses.
func (f *Forwarder) ours(ctx context.Context) context.Context {
	if id := f.cfg.Holder.Load().ClusterID; id != "" {
		return metadata.AppendToOutgoingContext(ctx, mdCluster, id)
	}
	return ctx
}

// upstream is ctx for a call to a node: it says for whom, and nothing else of what
// the client sent.
func upstream(ctx context.Context, principal string) context.Context {
	return metadata.NewOutgoingContext(ctx, metadata.Pairs(mdPrincipal, HeaderSafe(principal)))
}

// readPosition is the position a read has to see: the session's, and what the
// client sent along. A session of unknown past asks the leader first, unless the
// read is linearizable and asks by itself.
func (f *Forwarder) readPosition(ctx context.Context, principal string, linear bool) (s *session, position uint64, own bool, err error) {
	s, own, err = f.sessionOf(ctx, principal)
	if err != nil {
		return nil, 0, false, err
	}
	sent, ok, err := f.clientPosition(ctx)
	if err != nil {
		return nil, 0, false, err
	}
	if !s.known.Load() && !(ok && own) && !linear {
		f.metrics.sessionAsks.Inc()
		visible, err := f.askEnd(upstream(ctx, principal))
		if err != nil {
			return nil, 0, false, err
		}
		s.learn(visible)
	}
	return s, max(s.position.Load(), sent), own, nil
}

// nobodys is a position beyond every record there can be.
const nobodys = math.MaxUint64

// askEnd asks the leader where the log ends. Offsets would not do: a node answers
// it that leads no more, or has just started and not caught up. A position that
// nobody can have is refused as unknown only by a node that leads, after it has
// made sure of that.
func (f *Forwarder) askEnd(ctx context.Context) (visible uint64, err error) {
	r := f.reader(routingKey(ctx))
	r.leaderOnly = true
	err = r.each(ctx, func(ctx context.Context, up route.Upstream, _ bool) (err error) {
		visible, err = leaderEnd(ctx, up, nobodys)
		return err
	})
	return visible, err
}

// leaderEnd is where the log ends by the word of up, if that leads and the log
// ends before position.
func leaderEnd(ctx context.Context, up route.Upstream, position uint64) (visible uint64, err error) {
	_, err = nodev1.NewNodeClient(up.Conn()).Fetch(ctx, &nodev1.FetchRequest{MinPosition: position, MaxBytes: 1, WaitMs: 1})
	info, _ := apierr.From(err)
	if info.Reason != apierr.ReasonPositionUnknown {
		if err == nil {
			err = apierr.Behind{} // it is not the one to say
		}
		return 0, err
	}
	visible, _ = info.Uint(apierr.KeyVisible)
	return visible, nil
}

// confirm takes note that the log is readable up to position, which the session has
// now seen. asked is the position its client sent along, which is proven by then.
func (s *session) confirm(position uint64, own bool, asked uint64) {
	s.advance(position)
	if own {
		s.advance(asked)
		s.known.Store(true)
	}
}

// learn takes note that whatever was acknowledged or seen by anybody lies below
// position.
func (s *session) learn(position uint64) {
	s.advance(position)
	s.known.Store(true)
}

func (f *Forwarder) consume(ctx context.Context, req *logv1.ConsumeRequest, by *string) (any, error) {
	ctx, cancel := f.bounded(ctx)
	defer cancel()
	principal, err := f.cfg.Principal(ctx)
	if err != nil {
		return nil, err
	}
	if err := past(f.cfg.Rates.MayRead(principal)); err != nil {
		return nil, f.withPushback(ctx, err)
	}
	linear := req.GetLinearizable()
	s, position, own, err := f.readPosition(ctx, principal, linear)
	if err != nil {
		return nil, err
	}
	offset := req.GetOffset()
	wait := waitForPosition
	if offset >= position && !linear {
		wait = waitAtEnd
	}
	fetch := &nodev1.FetchRequest{
		Offset: offset, MinPosition: position, MaxBytes: 1, WaitMs: uint32(wait.Milliseconds()), Linearizable: linear,
	}
	if linear {
		f.metrics.linearReads.Inc()
	}
	r := f.reader(routingKey(ctx))
	r.linear, r.by = linear, by
	var visible uint64
	var reply *encodedMessage
	err = r.each(upstream(ctx, principal), func(ctx context.Context, up route.Upstream, _ bool) error {
		var m message
		err := up.Conn().Invoke(ctx, nodev1.Node_Fetch_FullMethodName, fetch, &m, grpc.ForceCodecV2(f.codec))
		if err != nil {
			return err
		}
		defer m.free()
		rec, err := recordAt(m.bytes(), offset)
		if err != nil {
			f.log.Error("a node answered a fetch wrongly", "node", up.ID(), "offset", offset, "err", err)
			return err
		}
		visible = visibleOf(m.bytes())
		b := appendConsume(make([]byte, 0, consumeLen(len(rec), offset)), rec, offset)
		reply = &encodedMessage{data: mem.BufferSlice{mem.SliceBuffer(b)}}
		return nil
	})
	if err != nil {
		if info, _ := apierr.From(err); info.Reason == apierr.ReasonOutOfRange {
			if next, ok := info.Uint(apierr.KeyNext); ok {
				s.confirm(next, own, min(position, next))
				if linear {
					s.learn(next)
				}
				f.setPosition(ctx, s, min(position, next))
			}
		}
		return nil, err
	}
	if linear {
		s.learn(visible)
	}
	s.confirm(offset+1, own, position)
	f.setPosition(ctx, s, position)
	f.cfg.Rates.HasRead(principal, reply.data.Len())
	return reply, nil
}
