package server_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/replica"
	"github.com/logd-io/logd/pkg/server"
	"github.com/logd-io/logd/pkg/tlsconf"
)

// linearReads are the two ways to ask for a linearizable read.
var linearReads = map[string]func(*rig, context.Context, uint64) error{
	"Consume": func(r *rig, ctx context.Context, off uint64) error {
		_, err := r.client().Consume(ctx, &logv1.ConsumeRequest{Offset: off, Linearizable: true})
		return err
	},
	"Fetch": func(r *rig, ctx context.Context, off uint64) error {
		_, err := r.proxy().Fetch(ctx, &nodev1.FetchRequest{Offset: off, Linearizable: true})
		return err
	},
}

// leaderSays makes the other node, which leads, answer like that.
func leaderSays(say func(ctx context.Context, leader string) (uint64, error)) func(*server.Config) {
	return func(c *server.Config) { c.ReadIndex = say }
}

func TestLinearizableReadOnTheLeader(t *testing.T) {
	for name, read := range linearReads {
		t.Run(name, func(t *testing.T) {
			r := start(t)
			r.put("0", "1")
			require.NoError(t, read(r, ctxOf(t), 1))
			require.Equal(t, apierr.OutOfRange{Offset: 2, Next: 2}, reasonOf(t, read(r, ctxOf(t), 2)))

			// It is asked to confirm itself, whether the record is there or not.
			r.confirmWith(func(context.Context) (uint64, error) {
				return 0, &replica.NotLeaderError{LeaderID: otherID, Term: 5}
			})
			require.Equal(t, apierr.NotLeader{Leader: otherID, Address: "two:2", Term: 5}, reasonOf(t, read(r, ctxOf(t), 1)))

			r.confirmWith(func(ctx context.Context) (uint64, error) {
				<-ctx.Done()
				return 0, context.Cause(ctx)
			})
			short, cancel := context.WithTimeout(ctxOf(t), time.Second)
			defer cancel()
			require.Equal(t, apierr.Behind{Visible: 2}, reasonOf(t, read(r, short, 1)), "a reason before the deadline")
		})
	}
}

func TestLinearizableReadOnAFollower(t *testing.T) {
	for name, read := range linearReads {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int32
			r := start(t, leaderSays(func(_ context.Context, leader string) (uint64, error) {
				asked.Add(1)
				if leader != otherID {
					return 0, errors.New("asked " + leader)
				}
				return 3, nil
			}))
			r.follow()
			r.put("0", "1")

			// Stale: without the flag it answers what it has, or that it does not know.
			_, err := r.client().Consume(ctxOf(t), &logv1.ConsumeRequest{Offset: 1})
			require.NoError(t, err)
			require.Zero(t, asked.Load())
			_, err = r.client().Consume(ctxOf(t), &logv1.ConsumeRequest{Offset: 2})
			require.Equal(t, apierr.Behind{Visible: 2}, reasonOf(t, err))

			// With it, it waits for what the leader said, whatever is read.
			got := make(chan error, 1)
			go func() { got <- read(r, ctxOf(t), 0) }()
			if name == "Fetch" {
				require.Equal(t, apierr.Behind{Visible: 2}, reasonOf(t, <-got), "a proxy asks another node")
				r.put("2")
			} else {
				require.Eventually(t, func() bool { return asked.Load() == 1 }, 10*time.Second, time.Millisecond)
				require.Empty(t, got)
				r.put("2")
				require.NoError(t, <-got)
			}
			require.NoError(t, read(r, ctxOf(t), 2))
			// It has come as far as the leader had: it may say that there is no more.
			require.Equal(t, apierr.OutOfRange{Offset: 3, Next: 3}, reasonOf(t, read(r, ctxOf(t), 3)))
			require.Equal(t, apierr.OutOfRange{Offset: 9, Next: 3}, reasonOf(t, read(r, ctxOf(t), 9)))
		})
	}
}

// What the leader says against it reaches the caller by a reason, and so does what
// goes wrong on the way to it.
func TestLinearizableReadRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		say  func(context.Context, string) (uint64, error)
		view func(*replica.View)
		want error
	}{
		"the leader leads no more": {
			say: func(context.Context, string) (uint64, error) {
				return 0, apierr.NotLeader{Leader: selfID, Address: "one:1", Term: 6}
			},
			want: apierr.NotLeader{Leader: selfID, Address: "one:1", Term: 6},
		},
		"the leader cannot be reached": {
			say:  func(context.Context, string) (uint64, error) { return 0, errors.New("connection refused") },
			want: apierr.Behind{Visible: 1},
		},
		"the leader drains": {
			say:  func(context.Context, string) (uint64, error) { return 0, apierr.Draining{} },
			want: apierr.Behind{Visible: 1},
		},
		"the leader hangs": {
			say: func(ctx context.Context, _ string) (uint64, error) {
				<-ctx.Done()
				return 0, ctx.Err()
			},
			want: apierr.Behind{Visible: 1},
		},
		"no leader is known": {
			say:  func(context.Context, string) (uint64, error) { return 1, nil },
			view: func(v *replica.View) { v.LeaderID = "" },
			want: apierr.NotLeader{Term: 4},
		},
		"nobody can be asked": {want: apierr.NotLeader{Leader: otherID, Address: "two:2", Term: 4}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, leaderSays(tc.say))
			r.follow()
			if tc.view != nil {
				r.set(tc.view)
			}
			r.put("0")
			for kind, read := range linearReads {
				require.Equal(t, tc.want, reasonOf(t, read(r, ctxOf(t), 0)), kind)
			}
		})
	}
}

// Reads that come while the leader is being asked share the next question, and do
// not get the answer to the one under way.
func TestFollowersShareQuestions(t *testing.T) {
	asked := make(chan struct{}, 64)
	answer := make(chan uint64)
	reg := prometheus.NewRegistry()
	r := start(t, func(c *server.Config) { c.Registerer = reg }, leaderSays(func(ctx context.Context, _ string) (uint64, error) {
		asked <- struct{}{}
		select {
		case at := <-answer:
			return at, nil
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}))
	r.follow()
	r.put("0")
	c := r.client()
	var wg sync.WaitGroup
	read := func() {
		wg.Go(func() {
			if _, err := c.Consume(ctxOf(t), &logv1.ConsumeRequest{Linearizable: true}); err != nil {
				t.Error(err)
			}
		})
	}
	read()
	<-asked
	for range 20 {
		read()
	}
	started := func() float64 {
		families, err := reg.Gather()
		require.NoError(t, err)
		for _, f := range families {
			for _, m := range f.GetMetric() {
				for _, l := range m.GetLabel() {
					if f.GetName() == "grpc_server_started_total" && l.GetName() == "grpc_method" && l.GetValue() == "Consume" {
						return m.GetCounter().GetValue()
					}
				}
			}
		}
		return 0
	}
	require.Eventually(t, func() bool { return started() == 21 }, 20*time.Second, time.Millisecond)
	// All are in their handlers, or just before them: they need one question more, or
	// a few.
	answer <- 1
	questions := 1
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for over := false; !over; {
		select {
		case answer <- 1:
			questions++
		case <-done:
			over = true
		}
	}
	require.LessOrEqual(t, questions, 8)
}

// A drain ends whoever waits for the leader.
func TestDrainEndsQuestions(t *testing.T) {
	r := start(t, leaderSays(func(ctx context.Context, _ string) (uint64, error) {
		<-ctx.Done()
		return 0, ctx.Err()
	}))
	r.follow()
	c := r.client()
	got := make(chan error, 1)
	go func() {
		_, err := c.Consume(ctxOf(t), &logv1.ConsumeRequest{Linearizable: true})
		got <- err
	}()
	ctx, cancel := context.WithTimeout(ctxOf(t), 10*time.Second)
	defer cancel()
	require.NoError(t, r.srv.Drain(ctx))
	require.Error(t, <-got)
}

func TestLinearizableIsForSingleReads(t *testing.T) {
	r := start(t)
	r.put("0")
	want := apierr.Invalid{Field: "linearizable", Why: "is for a single read, not for a stream"}
	cs, err := r.client().ConsumeStream(ctxOf(t), &logv1.ConsumeRequest{Linearizable: true})
	require.NoError(t, err)
	_, err = cs.Recv()
	require.Equal(t, want, reasonOf(t, err))
	fs, err := r.proxy().FetchStream(ctxOf(t), &nodev1.FetchRequest{Linearizable: true})
	require.NoError(t, err)
	_, err = fs.Recv()
	require.Equal(t, want, reasonOf(t, err))
}

func TestReadIndexIsForNodes(t *testing.T) {
	r := start(t)
	r.put("0", "1")
	peer := nodev1.NewNodeClient(r.dial(tlsconf.RoleStorage, "n2"))
	resp, err := peer.ReadIndex(ctxOf(t), &nodev1.ReadIndexRequest{})
	require.NoError(t, err)
	require.Equal(t, uint64(2), resp.GetPosition())
	require.Equal(t, uint64(4), resp.GetTerm())
	r.follow()
	_, err = peer.ReadIndex(ctxOf(t), &nodev1.ReadIndexRequest{})
	require.Equal(t, apierr.NotLeader{Leader: otherID, Address: "two:2", Term: 4}, reasonOf(t, err))
	r.confirmWith(func(ctx context.Context) (uint64, error) {
		<-ctx.Done()
		return 0, context.Cause(ctx)
	})
	short, cancel := context.WithTimeout(ctxOf(t), 500*time.Millisecond)
	defer cancel()
	_, err = peer.ReadIndex(short, &nodev1.ReadIndexRequest{})
	require.Equal(t, apierr.Behind{Visible: 2}, reasonOf(t, err))
}
