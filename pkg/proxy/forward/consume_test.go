package forward_test

import (
	"fmt"
	"math"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/proxy/forward"
)

func TestConsume(t *testing.T) {
	c := newCluster(t, "a", "b", "c")
	c.lead("a")
	c.fill(10)
	p := newProxy(t, c, nil)
	for i := range uint64(10) {
		var hdr metadata.MD
		resp, err := p.Consume(ctxFor(t, 5*time.Second), &logv1.ConsumeRequest{Offset: i}, grpc.Header(&hdr))
		require.NoError(t, err)
		want := &logv1.ConsumeResponse{Record: &logv1.Record{Value: []byte(fmt.Sprint("v", i)), Offset: i}}
		require.True(t, proto.Equal(want, resp), "%v", resp)
		require.Equal(t, []string{clusterID + ":10"}, hdr["logd-position"]) // the first read asked the leader
	}
	require.Len(t, c.nodes["a"].fetches, 1, "the question where the log ends")
	require.EqualValues(t, uint64(math.MaxUint64), c.nodes["a"].fetches[0].MinPosition)
	require.Len(t, c.nodes["b"].fetches, 5)
	require.Len(t, c.nodes["c"].fetches, 5)
	require.EqualValues(t, 1, p.metric("session_asks_total"))
	require.Equal(t, []string{"local"}, c.nodes["b"].mds[0]["logd-original-principal"])
	require.Equal(t, []string{clusterID}, c.nodes["b"].mds[0]["logd-cluster"])
}

// The offset a client writes into its record cannot leak: the log's comes last.
func TestConsumeOverridesAStoredOffset(t *testing.T) {
	c := newCluster(t, "a")
	c.lead("a")
	p := newProxy(t, c, nil)
	_, err := p.Produce(ctxFor(t, 5*time.Second), &logv1.ProduceRequest{Record: &logv1.Record{
		Value: []byte("x"), Offset: 99, Key: []byte("k"), Headers: []*logv1.Header{{Key: "h", Value: []byte("1")}}, Timestamp: 5}})
	require.NoError(t, err)
	resp, err := p.Consume(ctxFor(t, 5*time.Second), &logv1.ConsumeRequest{})
	require.NoError(t, err)
	require.True(t, proto.Equal(&logv1.Record{Value: []byte("x"), Key: []byte("k"),
		Headers: []*logv1.Header{{Key: "h", Value: []byte("1")}}, Timestamp: 5}, resp.Record), "%v", resp)
}

func TestConsumeOutsideTheLog(t *testing.T) {
	c := newCluster(t, "a", "b")
	c.lead("a")
	c.fill(10)
	c.lowest = 3
	p := newProxy(t, c, nil)
	for _, offset := range []uint64{0, 2, 10, 11, math.MaxUint64} {
		_, err := p.Consume(ctxFor(t, 5*time.Second), &logv1.ConsumeRequest{Offset: offset})
		requireReason(t, apierr.ReasonOutOfRange, err)
		info, _ := apierr.From(err)
		require.Equal(t, strconv.FormatUint(offset, 10), info.Metadata[apierr.KeyOffset])
	}
	s, err := p.ConsumeStream(ctxFor(t, 5*time.Second), &logv1.ConsumeRequest{Offset: 11})
	require.NoError(t, err)
	_, err = s.Recv()
	requireReason(t, apierr.ReasonOutOfRange, err)
}

func TestConsumeElsewhere(t *testing.T) {
	for name, broken := range map[string]func(n *fakeNode){
		"dead":   func(n *fakeNode) { n.kill() },
		"frozen": func(n *fakeNode) { n.freeze() },
		"drains": func(n *fakeNode) { n.onFetch = func(*nodev1.FetchRequest) error { return apierr.Draining{} } },
		"corrupt": func(n *fakeNode) {
			n.onFetch = func(*nodev1.FetchRequest) error { return status.Error(codes.DataLoss, "") }
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, "a", "b", "c")
			c.lead("a")
			c.fill(5)
			broken(c.nodes["b"])
			p := newProxy(t, c, func(cfg *forward.Config) { cfg.AttemptTimeout = 100 * time.Millisecond })
			for range 4 {
				_, err := p.Consume(ctxFor(t, 5*time.Second), &logv1.ConsumeRequest{Offset: 2})
				require.NoError(t, err)
			}
		})
	}
}

// Damage to one range says nothing against the node: it goes on serving the rest,
// and no client hears of it.
func TestADamagedRangeIsReadElsewhere(t *testing.T) {
	c := newCluster(t, "a", "b", "c")
	c.lead("a")
	c.fill(10)
	for _, id := range []string{"b", "c"} {
		c.nodes[id].onFetch = func(req *nodev1.FetchRequest) error {
			if req.GetOffset() < 5 {
				return apierr.Corrupt{}
			}
			return nil
		}
	}
	p := newProxy(t, c, nil)
	for i := range uint64(10) {
		resp, err := p.Consume(ctxFor(t, 5*time.Second), &logv1.ConsumeRequest{Offset: i})
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint("v", i), string(resp.GetRecord().GetValue()))
	}
	s, err := p.ConsumeStream(ctxFor(t, 5*time.Second), &logv1.ConsumeRequest{})
	require.NoError(t, err)
	expect(t, s, 0, 10)
	_, failed := p.hints.all()
	require.Empty(t, failed, "the nodes need not rest")
}

func TestConsumeWaitsForANode(t *testing.T) {
	c := newCluster(t, "a")
	c.lead("a")
	c.fill(1)
	p := newProxy(t, c, nil)
	_, err := p.Consume(ctxFor(t, 5*time.Second), &logv1.ConsumeRequest{})
	require.NoError(t, err)
	c.nodes["a"].kill()
	got := make(chan error, 1)
	ctx := ctxFor(t, 20*time.Second)
	go func() { _, err := p.Consume(ctx, &logv1.ConsumeRequest{}); got <- err }()
	require.Eventually(t, func() bool { _, failed := p.hints.all(); return len(failed) > 0 }, 10*time.Second, time.Millisecond)
	c.nodes["a"].revive()
	require.NoError(t, <-got)

	c.nodes["a"].kill()
	_, err = p.Consume(ctxFor(t, 3*time.Second), &logv1.ConsumeRequest{})
	requireReason(t, apierr.ReasonNotSent, err)
}

func TestGetOffsets(t *testing.T) {
	c := newCluster(t, "a", "b", "c")
	c.lead("a")
	c.fill(10)
	c.nodes["b"].lag = 2
	p := newProxy(t, c, nil)
	resp, err := p.GetOffsets(ctxFor(t, 5*time.Second), &logv1.GetOffsetsRequest{Time: proto.Int64(7)})
	require.NoError(t, err)
	require.True(t, proto.Equal(&logv1.GetOffsetsResponse{Next: 10, AtTime: proto.Uint64(5)}, resp), "%v", resp)
	// Without a leader a follower answers, but not one behind what was told before.
	c.lead("")
	c.nodes["a"].kill()
	for range 4 {
		resp, err = p.GetOffsets(ctxFor(t, 5*time.Second), &logv1.GetOffsetsRequest{})
		require.NoError(t, err)
		require.EqualValues(t, 10, resp.Next)
		require.Nil(t, resp.AtTime)
	}
}
