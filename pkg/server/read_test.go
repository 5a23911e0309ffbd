package server_test

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/internal/testutil"
	"github.com/logd-io/logd/pkg/replica"
	"github.com/logd-io/logd/pkg/server"
	"github.com/logd-io/logd/pkg/tlsconf"
)

func values(t *testing.T, b *nodev1.Batch) (out []string) {
	t.Helper()
	rest := b.Records
	for range b.Count {
		rec, n := protowire.ConsumeBytes(rest)
		require.Positive(t, n)
		rest = rest[n:]
		_, _, tag := protowire.ConsumeTag(rec)
		v, _ := protowire.ConsumeBytes(rec[tag:])
		out = append(out, string(v))
	}
	require.Empty(t, rest)
	return out
}

func reasonOf(t *testing.T, err error) error {
	t.Helper()
	info, ok := apierr.From(err)
	require.True(t, ok, "%v", err)
	return info.Err()
}

func TestFetchIsSlicedToTheOffset(t *testing.T) {
	r := start(t)
	r.put("0", "1", "2")
	r.put("3")
	r.put("4", "5")
	p := r.proxy()
	resp, err := p.Fetch(ctxOf(t), &nodev1.FetchRequest{Offset: 1})
	require.NoError(t, err)
	require.Equal(t, uint64(6), resp.Visible)
	var got []string
	next := uint64(1)
	for _, b := range resp.Batches {
		require.Equal(t, next, b.FirstOffset)
		next += uint64(b.Count)
		got = append(got, values(t, b)...)
	}
	require.Equal(t, []string{"1", "2", "3", "4", "5"}, got)

	for name, max := range map[string]uint32{"one byte": 1, "as much as the first": uint32(2 * (len(record("1")) + 1))} {
		resp, err = p.Fetch(ctxOf(t), &nodev1.FetchRequest{Offset: 1, MaxBytes: max})
		require.NoError(t, err)
		require.Len(t, resp.Batches, 1, name)
		require.Equal(t, []string{"1", "2"}, values(t, resp.Batches[0]), name)
	}
}

// The end of the log, by who is asked. proxy.md, "End of the log".
func TestEndOfTheLog(t *testing.T) {
	const end = 2
	read := map[string]func(*rig, uint64) error{
		"Consume": func(r *rig, off uint64) error {
			_, err := r.client().Consume(ctxOf(r.t), &logv1.ConsumeRequest{Offset: off})
			return err
		},
		"Fetch": func(r *rig, off uint64) error {
			_, err := r.proxy().Fetch(ctxOf(r.t), &nodev1.FetchRequest{Offset: off, WaitMs: 20})
			return err
		},
		"ConsumeStream": func(r *rig, off uint64) error {
			s, err := r.client().ConsumeStream(ctxOf(r.t), &logv1.ConsumeRequest{Offset: off})
			require.NoError(r.t, err)
			_, err = s.Recv()
			return err
		},
		"FetchStream": func(r *rig, off uint64) error {
			s, err := r.proxy().FetchStream(ctxOf(r.t), &nodev1.FetchRequest{Offset: off, WaitMs: 20})
			require.NoError(r.t, err)
			_, err = s.Recv()
			return err
		},
	}
	for method, do := range read {
		for who, leads := range map[string]bool{"leader": true, "follower": false} {
			for where, off := range map[string]uint64{"next": end, "beyond": end + 1, "the last number": math.MaxUint64} {
				t.Run(method+"/"+who+"/"+where, func(t *testing.T) {
					stream := method == "ConsumeStream" || method == "FetchStream"
					if stream && off == end {
						t.Skip("a stream waits there: TestStreamsWaitAtTheEnd")
					}
					r := start(t)
					r.put("0", "1")
					var want error = apierr.OutOfRange{Offset: off, Next: end}
					if !leads {
						r.follow()
						want = apierr.Behind{Visible: end}
					}
					require.Equal(t, want, reasonOf(t, do(r, off)))
				})
			}
		}
		t.Run(method+"/below the log", func(t *testing.T) {
			r := start(t)
			r.put("0", "1")
			r.mu.Lock()
			r.lowest = 1
			r.mu.Unlock()
			r.follow()
			require.Equal(t, apierr.OutOfRange{Offset: 0, Lowest: 1, Next: end}, reasonOf(t, do(r, 0)))
		})
	}
}

// A leader that was deposed and does not know it yet denies no offset: its successor
// may have it. proxy.md, "End of the log": the leader says OUT_OF_RANGE, nobody else.
func TestADeposedLeaderDeniesNoOffset(t *testing.T) {
	for name, read := range map[string]func(*rig) error{
		"Consume": func(r *rig) error {
			_, err := r.client().Consume(ctxOf(r.t), &logv1.ConsumeRequest{Offset: 7})
			return err
		},
		"FetchStream": func(r *rig) error {
			s, err := r.proxy().FetchStream(ctxOf(r.t), &nodev1.FetchRequest{Offset: 7, WaitMs: 20})
			require.NoError(r.t, err)
			_, err = s.Recv()
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t)
			r.put("0", "1")
			r.confirmWith(func(context.Context) (uint64, error) {
				return 0, &replica.NotLeaderError{LeaderID: otherID, Term: 5}
			})
			require.Equal(t, apierr.Behind{Visible: 2}, reasonOf(t, read(r)))
			r.confirmWith(func(ctx context.Context) (uint64, error) { // nobody answers it
				<-ctx.Done()
				return 0, context.Cause(ctx)
			})
			require.Equal(t, apierr.Behind{Visible: 2}, reasonOf(t, read(r)))
			r.confirmWith(nil)
			require.Equal(t, apierr.OutOfRange{Offset: 7, Next: 2}, reasonOf(t, read(r)))
		})
	}
}

func TestElectedButNotReadyLeaderSaysBehind(t *testing.T) {
	r := start(t)
	r.set(func(v *replica.View) { v.IsLeader = false }) // still named as leader
	_, err := r.proxy().Fetch(ctxOf(t), &nodev1.FetchRequest{Offset: 5, WaitMs: 10})
	require.Equal(t, apierr.Behind{}, reasonOf(t, err))
}

func TestNewLeaderTellsOffsetsOnlyOnceItKnows(t *testing.T) {
	r := start(t)
	r.put("0")
	r.set(func(v *replica.View) { v.IsLeader = false }) // elected
	got := make(chan uint64, 2)
	ctx, p, c := ctxOf(t), r.proxy(), r.client()
	go func() {
		resp, _ := p.Offsets(ctx, &nodev1.OffsetsRequest{})
		got <- resp.GetVisible()
	}()
	go func() {
		resp, _ := c.GetOffsets(ctx, &logv1.GetOffsetsRequest{})
		got <- resp.GetNext()
	}()
	r.put("1") // what the leader before it had acknowledged
	r.set(func(v *replica.View) { v.IsLeader = true })
	require.Equal(t, uint64(2), <-got)
	require.Equal(t, uint64(2), <-got)

	r.set(func(v *replica.View) { v.IsLeader = false })
	_, err := p.Offsets(ctx, &nodev1.OffsetsRequest{})
	require.Equal(t, apierr.Draining{}, reasonOf(t, err), "it never came to know")
}

func TestMinimumPosition(t *testing.T) {
	r := start(t)
	r.put("0", "1")
	p := r.proxy()
	ask := func(min uint64) error {
		_, err := p.Fetch(ctxOf(t), &nodev1.FetchRequest{Offset: 0, MinPosition: min, WaitMs: 20})
		s, serr := p.FetchStream(ctxOf(t), &nodev1.FetchRequest{Offset: 0, MinPosition: min, WaitMs: 20})
		require.NoError(t, serr)
		_, serr = s.Recv()
		require.Equal(t, err == nil, serr == nil, "Fetch %v, FetchStream %v", err, serr)
		if err != nil {
			require.Equal(t, reasonOf(t, err), reasonOf(t, serr))
		}
		return err
	}
	require.NoError(t, ask(2))
	require.Equal(t, apierr.PositionUnknown{Visible: 2}, reasonOf(t, ask(3)))
	r.follow()
	require.Equal(t, apierr.Behind{Visible: 2}, reasonOf(t, ask(3)))
	require.Equal(t, apierr.Behind{Visible: 2}, reasonOf(t, ask(math.MaxUint64)))

	got := make(chan error, 1)
	go func() {
		_, err := p.Fetch(ctxOf(t), &nodev1.FetchRequest{Offset: 0, MinPosition: 3, WaitMs: 20000})
		got <- err
	}()
	r.put("2")
	require.NoError(t, <-got, "the position arrived while it waited")
}

func TestFetchWaitsForTheOffset(t *testing.T) {
	for who, leads := range map[string]bool{"leader": true, "follower": false} {
		t.Run(who, func(t *testing.T) {
			r := start(t)
			if !leads {
				r.follow()
			}
			got := make(chan *nodev1.FetchResponse, 1)
			p := r.proxy()
			go func() {
				resp, _ := p.Fetch(ctxOf(t), &nodev1.FetchRequest{WaitMs: 20000})
				got <- resp
			}()
			r.put("late")
			require.Equal(t, []string{"late"}, values(t, (<-got).GetBatches()[0]))
		})
	}
}

func TestStreamsWaitAtTheEnd(t *testing.T) {
	r := start(t)
	r.put("0")
	r.follow()
	cs, err := r.client().ConsumeStream(ctxOf(t), &logv1.ConsumeRequest{Offset: 1})
	require.NoError(t, err)
	_, err = cs.Header()
	require.NoError(t, err, "headers of an idle tail")
	fs, err := r.proxy().FetchStream(ctxOf(t), &nodev1.FetchRequest{Offset: 1, HeartbeatMs: 10})
	require.NoError(t, err)
	_, err = fs.Header()
	require.NoError(t, err)
	for range 3 {
		beat, err := fs.Recv()
		require.NoError(t, err)
		require.Empty(t, beat.Batches, "nothing to send")
		require.Equal(t, uint64(1), beat.Visible)
	}
	for i, v := range []string{"1", "2", "3"} {
		r.put(v)
		resp, err := cs.Recv()
		require.NoError(t, err)
		require.Equal(t, v, string(resp.Record.Value))
		require.Equal(t, uint64(i+1), resp.Record.Offset)
	}
	next := uint64(1)
	for next < 4 {
		resp, err := fs.Recv()
		require.NoError(t, err)
		for _, b := range resp.Batches {
			require.Equal(t, next, b.FirstOffset)
			next += uint64(b.Count)
		}
	}
}

func TestConsumerThatDoesNotReadIsCutOff(t *testing.T) {
	for method, open := range map[string]func(*rig, *grpc.ClientConn) (interface{ RecvMsg(any) error }, any){
		"ConsumeStream": func(r *rig, cc *grpc.ClientConn) (interface{ RecvMsg(any) error }, any) {
			s, err := logv1.NewLogClient(cc).ConsumeStream(ctxOf(r.t), &logv1.ConsumeRequest{})
			require.NoError(r.t, err)
			return s, &logv1.ConsumeResponse{}
		},
		"FetchStream": func(r *rig, cc *grpc.ClientConn) (interface{ RecvMsg(any) error }, any) {
			s, err := nodev1.NewNodeClient(cc).FetchStream(ctxOf(r.t), &nodev1.FetchRequest{})
			require.NoError(r.t, err)
			return s, &nodev1.FetchResponse{}
		},
	} {
		t.Run(method, func(t *testing.T) {
			reg := prometheus.NewRegistry()
			r := start(t, func(c *server.Config) { c.SendTimeout, c.Registerer = 50*time.Millisecond, reg })
			big := string(make([]byte, 512<<10))
			for range 40 {
				r.put(big)
			}
			cc := r.dial(tlsconf.RoleAdmin, "slow")
			stream, resp := open(r, cc)
			// Not a message is read until the server has given up.
			testutil.Eventually(t, 20*time.Second, func() error {
				if handled(t, reg, method, "ResourceExhausted") == 0 {
					return errors.New("still sending")
				}
				return nil
			})
			var err error
			for err == nil {
				err = stream.RecvMsg(resp)
			}
			require.Equal(t, apierr.ReasonOverloaded, apierr.ReasonOf(err), "%v", err)
			r.alive()
		})
	}
}

func TestOffsetsAtATime(t *testing.T) {
	r := start(t)
	c := r.client()
	before := time.Now().UnixNano()
	_, err := c.Produce(ctxOf(t), &logv1.ProduceRequest{})
	require.NoError(t, err)
	resp, err := c.GetOffsets(ctxOf(t), &logv1.GetOffsetsRequest{})
	require.NoError(t, err)
	require.Equal(t, uint64(1), resp.Next)
	require.Nil(t, resp.AtTime)
	for at, want := range map[int64]uint64{0: 0, before: 0, math.MaxInt64: 1} {
		resp, err := c.GetOffsets(ctxOf(t), &logv1.GetOffsetsRequest{Time: &at})
		require.NoError(t, err)
		require.Equal(t, want, resp.GetAtTime())
		off, err := r.proxy().Offsets(ctxOf(t), &nodev1.OffsetsRequest{Time: &at})
		require.NoError(t, err)
		require.Equal(t, want, off.GetAtTime())
	}
}

// For a backup, and for nothing else, batches come with their timestamps and the cluster
// is named.
func TestFetchStreamForBackup(t *testing.T) {
	r := start(t)
	r.mu.Lock()
	r.commitLocked(&pending{
		batch: replica.Batch{Count: 1, Timestamp: 77, Records: protowire.AppendBytes(nil, record("0"))}, done: make(chan struct{}),
	})
	r.mu.Unlock()
	admin := nodev1.NewNodeClient(r.dial(tlsconf.RoleAdmin, "ops"))
	first := func(req *nodev1.FetchRequest) *nodev1.FetchResponse {
		s, err := admin.FetchStream(ctxOf(t), req)
		require.NoError(t, err)
		resp, err := s.Recv()
		require.NoError(t, err)
		return resp
	}
	resp := first(&nodev1.FetchRequest{ForBackup: true})
	require.Equal(t, cluster, resp.GetClusterId())
	require.EqualValues(t, 77, resp.GetBatches()[0].GetTimestamp())
	require.Equal(t, []string{"0"}, values(t, resp.GetBatches()[0]))
	require.Equal(t, cluster, first(&nodev1.FetchRequest{Offset: 1, HeartbeatMs: 10, ForBackup: true}).GetClusterId(), "with nothing to send, too")

	resp = first(&nodev1.FetchRequest{})
	require.Empty(t, resp.GetClusterId())
	require.Zero(t, resp.GetBatches()[0].GetTimestamp())

	r.set(func(v *replica.View) { v.ClusterID = "" })
	s, err := admin.FetchStream(ctxOf(t), &nodev1.FetchRequest{ForBackup: true})
	require.NoError(t, err)
	_, err = s.Recv()
	require.Equal(t, apierr.Draining{}, reasonOf(t, err), "it may be about to join one")

	_, err = admin.Fetch(ctxOf(t), &nodev1.FetchRequest{ForBackup: true})
	require.Equal(t, codes.InvalidArgument, status.Code(err), "%v", err)
}
