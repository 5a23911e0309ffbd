package replica_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/replica"
)

func one(msg string) replica.Batch {
	return replica.Batch{Count: 1, Records: framed(msg), Timestamp: 1}
}

func TestSubmitRefusals(t *testing.T) {
	t.Parallel()
	c := boot(t, 3, nil)
	l := c.leader()
	var invalid *replica.InvalidError
	for name, b := range map[string]replica.Batch{
		"no records":        {},
		"cut short":         {Count: 2, Records: framed("a")},
		"too large":         {Count: 1, Records: framed(string(make([]byte, replica.MaxBatchBytes)))},
		"keyed pair":        {Count: 2, Key: [16]byte{1}, Records: framed("a", "b")},
		"sequence overflow": {Count: 1, FirstSeq: ^uint64(0), Records: framed("a")},
	} {
		_, err := l.r.Submit(b)
		require.ErrorAs(t, err, &invalid, name)
	}
	for _, n := range c.up() {
		if n == l {
			continue
		}
		n.await("knows the leader", func(v replica.View) bool { return v.LeaderID == l.id })
		_, err := n.r.Submit(one("a"))
		var notLeader *replica.NotLeaderError
		require.ErrorAs(t, err, &notLeader)
		require.Equal(t, l.id, notLeader.LeaderID)
		require.Equal(t, l.r.View().Term, notLeader.Term)
	}
	require.Zero(t, l.r.Log().Visible())
}

// I4: what the state machine decides reaches the producer as a typed error.
func TestVerdictsReachTheProducer(t *testing.T) {
	t.Parallel()
	c := boot(t, 1, nil)
	l := c.leader()
	submit := func(b replica.Batch) (replica.Result, error) {
		p, err := l.r.Submit(b)
		require.NoError(t, err)
		return p.Wait(context.Background())
	}
	seq := func(epoch uint32, first uint64) replica.Batch {
		b := one("x")
		b.Producer, b.Owner, b.Epoch, b.FirstSeq = [16]byte{1}, 1, epoch, first
		return b
	}
	_, err := submit(seq(1, 5))
	var unknown *replica.UnknownProducerError
	require.ErrorAs(t, err, &unknown)
	_, err = submit(seq(1, 0))
	require.NoError(t, err)
	_, err = submit(seq(1, 3))
	var gap *replica.GapError
	require.ErrorAs(t, err, &gap)
	require.Equal(t, replica.GapError{Want: 1, Got: 3}, *gap)
	_, err = submit(seq(0, 1))
	var fenced *replica.FencedError
	require.ErrorAs(t, err, &fenced)
	require.Equal(t, uint32(1), fenced.Epoch)
	res, err := submit(seq(1, 0))
	require.NoError(t, err)
	require.Equal(t, replica.Result{FirstOffset: 0, Count: 1, Duplicate: true}, res)
	keyed := one("k")
	keyed.Key = [16]byte{7}
	res, err = submit(keyed)
	require.NoError(t, err)
	require.Equal(t, replica.Result{FirstOffset: 1, Count: 1}, res)
	res, err = submit(keyed)
	require.NoError(t, err)
	require.Equal(t, replica.Result{FirstOffset: 1, Count: 1, Duplicate: true}, res)
	require.Equal(t, uint64(2), l.r.Log().Visible(), "refused and repeated batches leave no holes")
}

// Group commit: concurrent produces share entries, and keep their order.
func TestConcurrentProducesShareEntries(t *testing.T) {
	t.Parallel()
	c := boot(t, 3, nil)
	l := c.leader()
	before := l.r.Stats().LastIndex
	var pending []*replica.Pending
	for i := range 2000 {
		p, err := l.r.Submit(one(fmt.Sprintf("record %d", i)))
		require.NoError(t, err)
		pending = append(pending, p)
	}
	for i, p := range pending {
		res, err := p.Result()
		require.NoError(t, err)
		require.Equal(t, uint64(i), res.FirstOffset)
	}
	used := l.r.Stats().LastIndex - before
	t.Logf("2000 produces in %d entries", used)
	require.Less(t, used, uint64(1000))
	for _, n := range c.up() {
		n.visible(2000)
		_, msgs := n.read()
		require.Equal(t, numbered(0, 2000), msgs)
	}
	require.Zero(t, l.r.Stats().InFlight)
}

// I12: the bytes waiting and in flight are bounded.
func TestOverload(t *testing.T) {
	t.Parallel()
	c := boot(t, 3, func(cfg *replica.Config) { cfg.MaxInFlightBytes = 64 << 10 })
	l := c.leader()
	for _, n := range c.up() {
		if n != l {
			require.NoError(t, n.stop())
		}
	}
	var accepted int
	var overloaded *replica.OverloadedError
	var pending []*replica.Pending
	for {
		p, err := l.r.Submit(one(string(make([]byte, 8<<10))))
		if err != nil {
			require.ErrorAs(t, err, &overloaded)
			require.Positive(t, overloaded.RetryAfter)
			break
		}
		accepted++
		pending = append(pending, p)
	}
	require.Equal(t, 7, accepted)
	for i := range 2 {
		for _, id := range []string{nodeID(1), nodeID(2), nodeID(3)} {
			if n := c.node(id); n.r == nil && i == 0 {
				n.start()
			}
		}
	}
	for _, p := range pending {
		<-p.Done() // acknowledged, or of unknown outcome: the leader lost its followers
	}
	c.produce([16]byte{1}, 0, "after")
}

// I13: whoever waits for a batch learns something, whatever happens to Raft.
func TestOutcomesWhenRaftStops(t *testing.T) {
	t.Parallel()
	c := boot(t, 3, nil)
	l := c.leader()
	c.produce([16]byte{1}, 0, "first")
	for _, n := range c.up() {
		if n != l {
			require.NoError(t, n.stop())
		}
	}
	before := l.r.Log().Last()
	var pending []*replica.Pending
	for i := range 100 {
		p, err := l.r.Submit(one(fmt.Sprint(i)))
		if err == nil {
			pending = append(pending, p)
		}
	}
	// Proposed, and stored here; or the lease ended first.
	c.eventually(func() bool { return l.r.Log().Last() > before || l.r.View().State != replica.StateLeader }, "proposed")
	proposed := l.r.Log().Last() > before
	require.NoError(t, l.stop())
	unknown := 0
	for _, p := range pending {
		_, err := p.Result()
		var notLeader *replica.NotLeaderError
		switch {
		case errors.Is(err, replica.ErrOutcomeUnknown):
			unknown++
		default:
			require.ErrorAs(t, err, &notLeader)
		}
	}
	require.Equal(t, proposed && len(pending) > 0, unknown > 0)
}

// I13: leadership is handed on without a batch of unknown outcome.
func TestTransferDrainsFirst(t *testing.T) {
	t.Parallel()
	c := boot(t, 3, nil)
	for round := range 3 {
		l := c.leader()
		var target *node
		for _, n := range c.up() {
			if n != l {
				target = n
			}
		}
		target.await("ready", func(v replica.View) bool { return v.Ready })
		var pending []*replica.Pending
		for i := range 200 {
			p, err := l.r.Submit(one(fmt.Sprintf("%d/%d", round, i)))
			require.NoError(t, err)
			pending = append(pending, p)
		}
		require.NoError(t, l.r.Transfer(context.Background(), target.id))
		for _, p := range pending {
			_, err := p.Result()
			require.NoError(t, err)
		}
		target.await("leads", func(v replica.View) bool { return v.IsLeader })
		var notLeader *replica.NotLeaderError
		require.ErrorAs(t, l.r.Transfer(context.Background(), ""), &notLeader)
	}
	c.equal()
}

func TestTransferThatFailsSaysWhy(t *testing.T) {
	t.Parallel()
	t.Run("nobody else", func(t *testing.T) {
		t.Parallel()
		require.ErrorIs(t, boot(t, 1, nil).leader().r.Transfer(context.Background(), ""), replica.ErrNoOtherVoter)
	})
	t.Run("one who is gone", func(t *testing.T) {
		t.Parallel()
		c := boot(t, 3, nil)
		l := c.leader()
		for _, n := range c.up() {
			if n != l {
				require.NoError(t, n.stop())
				var failed *replica.TransferError
				require.ErrorAs(t, l.r.Transfer(context.Background(), n.id), &failed)
				require.True(t, l.r.View().IsLeader)
				return
			}
		}
	})
}

// I25: a transfer to a voter that is behind and away, tried again and again, leaves a leader
// that takes records.
func TestTransferToOneWhoIsAwayHarmsNobody(t *testing.T) {
	t.Parallel()
	c := boot(t, 3, nil)
	l := c.leader()
	for _, n := range c.up() {
		if n == l {
			continue
		}
		require.NoError(t, n.stop())
		c.produce([16]byte{1}, 0, "which it has not got")
		for range 3 {
			var failed *replica.TransferError
			require.ErrorAs(t, l.r.Transfer(context.Background(), n.id), &failed)
			require.ErrorContains(t, failed, n.id+" ")
		}
		p, err := l.r.Submit(one("after"))
		require.NoError(t, err)
		_, err = p.Result()
		require.NoError(t, err)
		return
	}
}

// With nobody named, leadership goes to one who is there, also where the one who is away
// has as much of the log.
func TestTransferGoesToOneWhoAnswers(t *testing.T) {
	t.Parallel()
	for i := range 2 {
		c := boot(t, 3, nil)
		l := c.leader()
		c.produce([16]byte{1}, 0, "all have it")
		others := slices.DeleteFunc(c.up(), func(n *node) bool { return n == l })
		for _, n := range others {
			n.visible(l.r.Log().Visible())
		}
		require.NoError(t, others[i].stop())
		require.NoError(t, l.r.Transfer(context.Background(), ""))
		others[1-i].await("leads", func(v replica.View) bool { return v.IsLeader })
	}
}

func TestDrain(t *testing.T) {
	t.Parallel()
	c := boot(t, 3, nil)
	l := c.leader()
	p, err := l.r.Submit(one("last"))
	require.NoError(t, err)
	require.NoError(t, l.r.Drain(context.Background()))
	_, err = p.Result()
	require.NoError(t, err)
	_, err = l.r.Submit(one("more"))
	require.ErrorIs(t, err, replica.ErrDraining)
	l.await("draining", func(v replica.View) bool { return v.Draining })
	require.NoError(t, l.r.Transfer(context.Background(), ""))
}

func TestWaitPosition(t *testing.T) {
	t.Parallel()
	c := boot(t, 3, nil)
	ctx := context.Background()
	c.produce([16]byte{1}, 0, "a", "b")
	l := c.leader()
	var unknown *replica.PositionUnknownError
	var behind *replica.BehindError
	require.NoError(t, l.r.WaitPosition(ctx, 0, 0))
	require.NoError(t, l.r.WaitPosition(ctx, 2, 0))
	require.ErrorAs(t, l.r.WaitPosition(ctx, 3, time.Millisecond), &unknown)
	require.Equal(t, uint64(2), unknown.Visible)
	require.ErrorAs(t, l.r.WaitPosition(ctx, ^uint64(0), time.Millisecond), &unknown)
	for _, n := range c.up() {
		if n == l {
			continue
		}
		require.NoError(t, n.r.WaitPosition(ctx, 2, testPatience))
		require.ErrorAs(t, n.r.WaitPosition(ctx, 3, time.Millisecond), &behind)
		require.Equal(t, uint64(2), behind.Visible)
		waiting := make(chan error, 1)
		go func() { waiting <- n.r.WaitPosition(ctx, 3, testPatience) }()
		gone, cancel := context.WithCancelCause(ctx)
		cancel(errors.New("client went away"))
		require.EqualError(t, n.r.WaitPosition(gone, 9, testPatience), "client went away")
		c.produce([16]byte{1}, 2, "c")
		require.NoError(t, <-waiting)
		return
	}
}
