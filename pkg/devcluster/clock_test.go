package devcluster_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/devcluster"
	"github.com/logd-io/logd/pkg/internal/testutil"
	"github.com/logd-io/logd/pkg/tlsconf"
)

// skewed is a clock that is off by what is stored in it.
type skewed struct{ atomic.Int64 }

func (s *skewed) now() time.Time { return time.Now().Add(time.Duration(s.Load())) }

// straight is a connection to a node itself.
func straight(t *testing.T, c *devcluster.Cluster, n *devcluster.Node, role tlsconf.Role) *grpc.ClientConn {
	t.Helper()
	src, err := tlsconf.Load(c.Files(role))
	require.NoError(t, err)
	conn, err := grpc.NewClient("passthrough:///"+n.Addr(),
		grpc.WithTransportCredentials(credentials.NewTLS(src.Client(tlsconf.ALPNgRPC, tlsconf.RoleStorage, n.Name))))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	return conn
}

// lead makes n the leader.
func lead(t *testing.T, c *devcluster.Cluster, n *devcluster.Node) {
	t.Helper()
	testutil.Eventually(t, patience, func() error {
		at := c.Leader()
		switch {
		case at == nil:
			return fmt.Errorf("no leader")
		case at == n:
			return nil
		}
		_, err := nodev1.NewNodeClient(straight(t, c, at, tlsconf.RoleAdmin)).
			TransferLeadership(t.Context(), &nodev1.TransferLeadershipRequest{TargetId: n.Agent().ID()})
		if err == nil && c.Leader() != n {
			err = fmt.Errorf("%s does not lead yet", n.Name)
		}
		return err
	})
}

// One node's clock is an hour back: as a follower, as the leader, and after it
// was put right. Clocks stamp records and decide nothing: every record is
// acknowledged at the next offset, all nodes have the same, and offsets by time
// stay in order.
func TestClockAnHourBack(t *testing.T) {
	const behind = "node2"
	clock := new(skewed)
	c := start(t, devcluster.Options{Clocks: map[string]func() time.Time{behind: clock.now}})
	slow, other := c.Node(behind), c.Node("node1")
	log := client(t, c)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()

	const each = 20
	next := uint64(0)
	produce := func(phase string) (began time.Time) {
		began = time.Now()
		for range each {
			resp, err := log.Produce(ctx, &logv1.ProduceRequest{Record: &logv1.Record{Value: fmt.Append(nil, phase, next)}})
			require.NoError(t, err, phase)
			require.Equal(t, next, resp.GetOffset(), phase)
			next++
		}
		return began
	}
	lead(t, c, other)
	first := produce("before ")
	clock.Store(int64(-time.Hour))
	produce("follower ")
	lead(t, c, slow)
	produce("leader ")
	clock.Store(0)
	right := produce("again ")
	lead(t, c, other)
	produce("after ")

	// at asks a node for the first offset at a time, once it has everything.
	at := func(n *devcluster.Node, when time.Time) uint64 {
		ns, log := when.UnixNano(), logv1.NewLogClient(straight(t, c, n, tlsconf.RoleClient))
		var resp *logv1.GetOffsetsResponse
		testutil.Eventually(t, patience, func() (err error) {
			resp, err = log.GetOffsets(ctx, &logv1.GetOffsetsRequest{Time: &ns})
			if err == nil && resp.GetNext() < next {
				err = fmt.Errorf("%s has %d of %d", n.Name, resp.GetNext(), next)
			}
			return err
		})
		require.Equal(t, next, resp.GetNext())
		return resp.GetAtTime()
	}
	check := func() {
		for _, n := range c.Nodes() {
			require.Zero(t, at(n, first.Add(-2*time.Hour)), n.Name)
			require.Zero(t, at(n, first.Add(-30*time.Minute)), "%s: the stamps that went back hide nothing before them", n.Name)
			require.Equal(t, uint64(3*each), at(n, right), n.Name)
			require.Equal(t, next, at(n, time.Now().Add(time.Hour)), n.Name)

			stream, err := logv1.NewLogClient(straight(t, c, n, tlsconf.RoleClient)).ConsumeStream(ctx, &logv1.ConsumeRequest{})
			require.NoError(t, err)
			for off := range next {
				resp, err := stream.Recv()
				require.NoError(t, err)
				rec := resp.GetRecord()
				require.Equal(t, off, rec.GetOffset())
				phase := []string{"before ", "follower ", "leader ", "again ", "after "}[off/each]
				require.Equal(t, fmt.Sprint(phase, off), string(rec.GetValue()), n.Name)
				late := first.Sub(time.Unix(0, rec.GetTimestamp()))
				require.Equal(t, phase == "leader ", late > 30*time.Minute, "%s: offset %d is stamped %s before the start", n.Name, off, late)
			}
		}
	}
	check()
	for _, n := range c.Nodes() {
		require.NoError(t, n.Kill())
	}
	clock.Store(int64(-time.Hour)) // and it is back again with the restart
	for _, n := range c.Nodes() {
		require.NoError(t, n.Revive())
	}
	leader(t, c)
	check()
	lead(t, c, slow)
	produce("")
}
