package replica_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/replica"
)

// decided submits a batch to a node that leads and gives the verdict.
func (n *node) decided(b replica.Batch) (replica.Result, error) {
	p, err := n.r.Submit(b)
	if err != nil {
		return replica.Result{}, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), testPatience)
	defer cancel()
	return p.Wait(ctx)
}

func sequenced(p byte, epoch uint32, seq uint64, msgs ...string) replica.Batch {
	return replica.Batch{Producer: [16]byte{p}, Owner: 1, Epoch: epoch, FirstSeq: seq, Count: uint32(len(msgs)), Records: framed(msgs...), Timestamp: 1}
}

// I4: a window of five batches sent again while the first sending is still on its
// way through Raft is appended once, and both sendings get the same offsets.
func TestRepeatsOfWhatIsInFlight(t *testing.T) {
	t.Parallel()
	c := boot(t, 3, nil)
	l := c.leader()
	keyed := one("keyed")
	keyed.Key = [16]byte{7}
	for round := range uint64(20) {
		var window []replica.Batch
		for i := range uint64(5) {
			window = append(window, sequenced(1, 0, round*10+i*2, fmt.Sprint(round, i, "a"), fmt.Sprint(round, i, "b")))
		}
		keyed.Key[1] = byte(round)
		window = append(window, keyed)
		var pending []*replica.Pending
		for range 3 {
			for _, b := range window {
				p, err := l.r.Submit(b)
				require.NoError(t, err)
				pending = append(pending, p)
			}
		}
		first := make([]replica.Result, len(window))
		for i, p := range pending {
			res, err := p.Result()
			require.NoError(t, err)
			if i < len(window) {
				require.False(t, res.Duplicate)
				first[i] = res
				continue
			}
			require.True(t, res.Duplicate)
			res.Duplicate = false
			require.Equal(t, first[i%len(window)], res)
		}
		require.Equal(t, (round+1)*11, l.r.Log().Visible())
	}
}

// past is what was appended once and is sent again, with the verdicts it must get.
type past struct {
	t       *testing.T
	batches []replica.Batch  // a producer's, in sequence
	results []replica.Result // of the first time
	keyed   replica.Batch
	keyedAt uint64
}

func makePast(c *cluster) *past {
	h := &past{t: c.t.(*testing.T), keyed: one("keyed")}
	h.keyed.Key = [16]byte{9}
	first := func(b replica.Batch) replica.Result {
		res, err := c.leader().decided(b)
		require.NoError(c.t, err)
		require.False(c.t, res.Duplicate)
		return res
	}
	first(sequenced(1, 3, 0, "older epoch"))
	for i := range uint64(7) {
		b := sequenced(1, 4, i*2, fmt.Sprint(i, "a"), fmt.Sprint(i, "b"))
		h.batches = append(h.batches, b)
		h.results = append(h.results, first(b))
	}
	h.keyedAt = first(h.keyed).FirstOffset
	return h
}

// repeat sends all of it again to a node that leads.
func (h *past) repeat(l *node, when string) {
	h.t.Helper()
	end := l.r.Log().Visible()
	var gap *replica.GapError
	var fenced *replica.FencedError
	var unknown *replica.UnknownProducerError
	for i, b := range h.batches {
		res, err := l.decided(b)
		if i < len(h.batches)-5 {
			require.ErrorAs(h.t, err, &gap, "%s: batch %d is outside the window", when, i)
			require.Equal(h.t, uint64(14), gap.Want)
			continue
		}
		require.NoError(h.t, err, "%s: batch %d", when, i)
		want := h.results[i]
		want.Duplicate = true
		require.Equal(h.t, want, res, "%s: batch %d", when, i)
		// The first record alone, or one more, is not what was appended: no OK for it.
		for _, msgs := range [][]string{{"x"}, {"x", "y", "z"}} {
			_, err = l.decided(sequenced(1, 4, b.FirstSeq, msgs...))
			require.ErrorAs(h.t, err, &gap, "%s: batch %d with other bounds", when, i)
		}
	}
	res, err := l.decided(h.keyed)
	require.NoError(h.t, err, when)
	require.Equal(h.t, replica.Result{FirstOffset: h.keyedAt, Count: 1, Duplicate: true}, res, when)
	elsewhere := h.keyed // the client's repeat, through another proxy's producer
	elsewhere.Producer, elsewhere.Owner = [16]byte{2, byte(end), byte(len(when))}, 2
	res, err = l.decided(elsewhere)
	require.NoError(h.t, err, when)
	require.Equal(h.t, replica.Result{FirstOffset: h.keyedAt, Count: 1, Duplicate: true}, res, when)
	_, err = l.decided(sequenced(1, 4, 15, "gap"))
	require.ErrorAs(h.t, err, &gap, when)
	_, err = l.decided(sequenced(1, 3, 1, "older epoch"))
	require.ErrorAs(h.t, err, &fenced, when)
	require.Equal(h.t, uint32(4), fenced.Epoch)
	foreign := sequenced(1, 5, 0, "another owner's")
	foreign.Owner = 2
	_, err = l.decided(foreign)
	require.ErrorAs(h.t, err, &unknown, when)
	_, err = l.decided(sequenced(99, 0, 4, "never heard of"))
	require.ErrorAs(h.t, err, &unknown, when)
	require.Equal(h.t, end, l.r.Log().Visible(), "%s: nothing of it was appended", when)
}

// I4: a repeat is recognised by whoever leads: after a failover, after a restart
// over the log and over a checkpoint, and by a node that lagged so far behind that
// it got the past as a checkpoint, whose records are not even there any more.
func TestRepeatsAreRecognisedForEver(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	c := boot(t, 3, nil)
	next := uint64(0)
	put := func(k int) {
		for range k {
			c.produce([16]byte{50}, next, fmt.Sprint("other ", next))
			next++
		}
	}
	checkpoint := func() {
		at := c.leader().r.Log().Visible()
		for _, n := range c.up() {
			n.visible(at)
			require.NoError(t, n.r.Checkpoint())
		}
	}
	put(5)
	checkpoint()
	var lagging *node
	for _, n := range c.up() {
		if n != c.leader() {
			lagging = n
		}
	}
	require.NoError(t, lagging.stop())

	h := makePast(c)
	h.repeat(c.leader(), "at once")

	old := c.leader()
	for _, n := range c.up() {
		if n != old {
			n.await("ready", func(v replica.View) bool { return v.Ready })
		}
	}
	require.NoError(t, old.r.Transfer(ctx, ""))
	for c.leader() == old { // until it has noticed
		<-old.r.Changes()
	}
	h.repeat(c.leader(), "by the next leader")

	restart := func() {
		up := c.up()
		for _, n := range up {
			_ = n.stop()
		}
		for _, n := range up {
			n.start()
		}
	}
	restart()
	h.repeat(c.leader(), "after a restart over the log")
	checkpoint()
	restart()
	h.repeat(c.leader(), "after a restart over a checkpoint")

	for range 3 {
		put(10)
		checkpoint()
	}
	lowest := c.leader().r.Log().Visible() - 1
	require.Greater(t, lowest, h.keyedAt)
	put(1)
	checkpoint()
	require.NoError(t, c.leader().r.SetLowest(ctx, lowest))
	for _, n := range c.up() {
		c.eventually(func() bool { return n.r.Log().Lowest() == lowest && n.r.Log().Start().Offset > h.keyedAt }, "%s: start of the log moves", n.id)
	}
	h.repeat(c.leader(), "after the records were given up")

	lagging.start()
	lagging.visible(c.leader().r.Log().Visible())
	require.Greater(t, lagging.r.Log().Start().Offset, h.keyedAt, "it got a checkpoint")
	lagging.await("ready", func(v replica.View) bool { return v.Ready })
	require.NoError(t, c.leader().r.Transfer(ctx, lagging.id))
	lagging.await("leads", func(v replica.View) bool { return v.IsLeader })
	h.repeat(lagging, "by a node that had it installed")
	res, err := lagging.decided(sequenced(1, 4, 14, "goes on"))
	require.NoError(t, err)
	require.False(t, res.Duplicate)
	c.equal()
}
