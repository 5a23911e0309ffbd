package devcluster_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/logd-io/logd/config"
	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/authz"
	"github.com/logd-io/logd/pkg/devcluster"
	"github.com/logd-io/logd/pkg/internal/testutil"
	"github.com/logd-io/logd/pkg/tlsconf"
)

func TestMain(m *testing.M) { testutil.VerifyMain(m) }

const patience = 90 * time.Second

func start(t *testing.T, opt devcluster.Options) *devcluster.Cluster {
	t.Helper()
	opt.AnyPort, opt.Heartbeat = true, time.Second
	if testing.Verbose() {
		opt.Logger = hclog.New(&hclog.LoggerOptions{Level: hclog.Info, Output: os.Stderr})
	}
	c, err := devcluster.Start(opt)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, c.Close())
		select {
		case err := <-c.Failed():
			require.NoError(t, err)
		default:
		}
	})
	return c
}

func leader(t *testing.T, c *devcluster.Cluster) (n *devcluster.Node) {
	t.Helper()
	testutil.Eventually(t, patience, func() error {
		if n = c.Leader(); n == nil {
			return errors.New("no leader")
		}
		return nil
	})
	return n
}

func client(t *testing.T, c *devcluster.Cluster) logv1.LogClient {
	t.Helper()
	conn, err := grpc.NewClient(c.Proxy(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	return logv1.NewLogClient(conn)
}

func produce(t *testing.T, c logv1.LogClient, n int) (offsets []uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for i := range n {
		resp, err := c.Produce(ctx, &logv1.ProduceRequest{Record: &logv1.Record{Value: fmt.Appendf(nil, "record %d", i)}}, grpc.WaitForReady(true))
		require.NoError(t, err)
		offsets = append(offsets, resp.GetOffset())
	}
	return offsets
}

func TestKillAndRevive(t *testing.T) {
	c := start(t, devcluster.Options{})
	first := leader(t, c)
	naive := client(t, c)
	require.Equal(t, []uint64{0, 1, 2}, produce(t, naive, 3))

	require.NoError(t, first.Kill())
	require.False(t, first.Running())
	require.Error(t, first.Kill())
	require.Equal(t, []uint64{3, 4, 5}, produce(t, naive, 3))
	second := leader(t, c)
	require.NotSame(t, first, second)

	addr := second.Addr()
	require.NoError(t, first.Revive())
	require.Error(t, first.Revive())
	testutil.Eventually(t, patience, func() error {
		if v := first.Agent().View(); !v.Ready {
			return fmt.Errorf("%s is not ready: %+v", first.Name, v)
		}
		return nil
	})
	require.Equal(t, addr, second.Addr())
	require.Equal(t, []uint64{6, 7, 8}, produce(t, naive, 3))
}

func TestPartitionedLeaderIsReplaced(t *testing.T) {
	c := start(t, devcluster.Options{})
	old := leader(t, c)
	naive := client(t, c)
	produce(t, naive, 3)
	old.Partition()
	require.True(t, old.Partitioned())
	require.Equal(t, []uint64{3, 4, 5}, produce(t, naive, 3))
	old.Heal()
	testutil.Eventually(t, patience, func() error {
		if v := old.Agent().View(); v.LeaderID == "" || v.LeaderID == old.Agent().ID() {
			return fmt.Errorf("%s does not follow: %+v", old.Name, v)
		}
		return nil
	})
	require.Equal(t, []uint64{6}, produce(t, naive, 1))
}

// A folder that held a cluster brings it back, on the ports it had.
func TestFolderIsKept(t *testing.T) {
	dir := t.TempDir()
	c, err := devcluster.Start(devcluster.Options{Dir: dir, AnyPort: true, Heartbeat: time.Second, Nodes: 1})
	require.NoError(t, err)
	leader(t, c)
	addr := c.Nodes()[0].Addr()
	produce(t, client(t, c), 5)
	require.NoError(t, c.Close())

	c = start(t, devcluster.Options{Dir: dir, Nodes: 1})
	require.Equal(t, addr, c.Nodes()[0].Addr())
	require.Equal(t, []uint64{5}, produce(t, client(t, c), 1))
}

func TestOptionsAreChecked(t *testing.T) {
	for name, opt := range map[string]devcluster.Options{
		"too many nodes":     {Nodes: 100},
		"ports that are not": {PortBase: 65530},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := devcluster.Start(opt)
			require.Error(t, err)
		})
	}
}

// The policy that is shipped loads, lets those in who are there, and nobody else;
// edited, it is what the next start goes by.
func TestAClusterHasAPolicy(t *testing.T) {
	dir := t.TempDir()
	c, err := devcluster.Start(devcluster.Options{Dir: dir, Nodes: 1, AnyPort: true, Heartbeat: time.Second})
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close()) }()
	file := filepath.Join(dir, "policy.csv")
	require.NoError(t, authz.Verify(authz.Files{Policy: file}))
	src, err := tlsconf.Load(c.Files(tlsconf.RoleClient))
	require.NoError(t, err)
	conn, err := grpc.NewClient("passthrough:///"+c.Nodes()[0].Addr(),
		grpc.WithTransportCredentials(credentials.NewTLS(src.Client(tlsconf.ALPNgRPC, tlsconf.RoleStorage, "node1"))))
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	produce := func() codes.Code {
		_, err := logv1.NewLogClient(conn).Produce(ctx, &logv1.ProduceRequest{Record: &logv1.Record{Value: []byte("x")}})
		return status.Code(err)
	}
	require.Eventually(t, func() bool { return produce() == codes.OK }, time.Minute, 20*time.Millisecond)
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, []byte(strings.Replace(string(text), "p, client, *, produce\n", "", 1)), 0o600))
	n := c.Nodes()[0]
	_, err = n.Agent().Reload(func() (config.Node, error) { return n.Config(), nil })
	require.NoError(t, err)
	require.Equal(t, codes.PermissionDenied, produce())
}
