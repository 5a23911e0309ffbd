package e2e_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
)

// series counts the lines of /metrics.
func series(t *testing.T, ctx context.Context, admin string) (n int) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/metrics", nil)
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if !strings.HasPrefix(lines.Text(), "#") {
			n++
		}
	}
	require.NoError(t, lines.Err())
	return n
}

// manyMethods is how many methods nobody has heard of are called; the
// environment may ask for more.
func manyMethods(t *testing.T) int {
	n, err := strconv.Atoi(os.Getenv("LOGD_TEST_METHODS"))
	if err != nil {
		n = 2000
	}
	t.Logf("%d methods", n)
	return n
}

// What callers make up ends in no metric: labels are bounded.
func TestInventedMethodsMakeNoSeries(t *testing.T) {
	w := start(t)
	n := manyMethods(t)
	for name, at := range map[string]struct {
		conn  *grpc.ClientConn
		admin string
	}{
		"proxy": {w.naive(), w.proxy.Admin},
		"node":  {w.dial("client", w.leader()), w.leader().Admin},
	} {
		t.Run(name, func(t *testing.T) {
			call := func(method string) codes.Code {
				return status.Code(at.conn.Invoke(w.ctx, method, &emptypb.Empty{}, &emptypb.Empty{}))
			}
			invented := func() string {
				return []string{"/log.v1.Log/", "/grpc.reflection.v1.X/", "/a.b.C/", "/"}[rand.IntN(4)] + fmt.Sprintf("M%x", rand.Uint64())
			}
			for range 20 {
				call(invented())
			}
			before := series(t, w.ctx, at.admin)
			var wg sync.WaitGroup
			for range 16 {
				wg.Go(func() {
					for range n / 16 {
						if c := call(invented()); c != codes.Unimplemented && c != codes.Unavailable {
							t.Errorf("an invented method is answered %s", c)
						}
					}
				})
			}
			wg.Wait()
			require.InDelta(t, before, series(t, w.ctx, at.admin), 40)
		})
	}
	_, err := produce(w.ctx, w.naive(), "nobody was disturbed")
	require.NoError(t, err)
}

// Metadata is where a caller says things about itself. What is too much, not
// its to say, or of another cluster is refused by name.
func TestMetadataOfStrangers(t *testing.T) {
	w := start(t)
	leader := w.leader()
	_, err := produce(w.ctx, w.naive(), "one")
	require.NoError(t, err)
	read := func(conn *grpc.ClientConn, kv ...string) error {
		_, err := logv1.NewLogClient(conn).Consume(metadata.AppendToOutgoingContext(w.ctx, kv...), &logv1.ConsumeRequest{})
		return err
	}
	ways := map[string]*grpc.ClientConn{"proxy": w.naive(), "node": w.dial("client", leader)}
	for name, conn := range ways {
		require.NoError(t, read(conn, "x-mine", strings.Repeat("a", 8<<10)), name)
		err := read(conn, "x-mine", strings.Repeat("a", 64<<10))
		require.NotEqual(t, codes.OK, status.Code(err), name)
		require.NoError(t, read(conn), "%s: the connection goes on", name)

	}

	// A node alone has no sessions. A proxy takes a position only of its cluster,
	// and one that the log never had spoils nothing for the others of its session.
	proxy, cluster := ways["proxy"], w.stats(leader).GetClusterId()
	for _, bad := range []string{
		"x", ":", "1", "not-a-uuid:1", cluster + ":-1", cluster + ":99999999999999999999999",
		"00000000-0000-4000-8000-000000000000:1",
	} {
		err := read(proxy, "logd-position", bad)
		require.Equal(t, codes.InvalidArgument, status.Code(err), "position %q: %v", bad, err)
		require.Contains(t, err.Error(), "logd-position")
	}
	for _, far := range []string{"1000000", "18446744073709551615"} {
		for _, session := range []string{"", "mine"} {
			kv := []string{"logd-position", cluster + ":" + far}
			if session != "" {
				kv = append(kv, "logd-session", session)
			}
			err := read(proxy, kv...)
			require.Equal(t, apierr.ReasonPositionUnknown, apierr.ReasonOf(err), "%v", err)
			require.NoError(t, read(proxy), "a position of one caller's stayed with all")
			require.NoError(t, read(w.naive(), kv[2:]...), "a position of one call's stayed with its session")
		}
	}
	for _, cert := range []string{"client", "admin", w.follower().Name} {
		err := read(w.dial(cert, leader), "logd-original-principal", "root")
		require.Equal(t, codes.PermissionDenied, status.Code(err), "%s: %v", cert, err)
	}
	require.Equal(t, codes.PermissionDenied, status.Code(read(w.dial("proxy1", leader))), "a proxy says for whom")

	// Nobody joins or promises under a name that is not its own, a proxy never.
	for _, cert := range []string{"client", "admin", "proxy1", w.follower().Name} {
		node := nodev1.NewNodeClient(w.dial(cert, leader))
		_, err := node.Join(w.ctx, &nodev1.JoinRequest{Id: "node9.00000009", RpcAddr: "127.0.0.1:1"})
		require.Contains(t, []codes.Code{codes.PermissionDenied, codes.InvalidArgument}, status.Code(err), "%s: %v", cert, err)
		_, err = node.Promise(w.ctx, &nodev1.PromiseRequest{ClusterId: "00000000-0000-4000-8000-000000000000", Initiator: "node9.00000009", Servers: []string{"node9.00000009"}})
		require.Contains(t, []codes.Code{codes.PermissionDenied, codes.InvalidArgument}, status.Code(err), "%s: %v", cert, err)
		if cert != "admin" {
			_, err = node.RemovePeer(w.ctx, &nodev1.RemovePeerRequest{Id: w.stats(w.follower()).GetNodeId()})
			require.Equal(t, codes.PermissionDenied, status.Code(err), "%s: %v", cert, err)
		}
	}
	// A Join that is replayed, of a node that is in, changes nothing.
	f := w.follower()
	before := w.stats(leader).GetPeers()
	_, err = nodev1.NewNodeClient(w.dial(f.Name, leader)).Join(w.ctx, &nodev1.JoinRequest{Id: w.stats(f).GetNodeId(), RpcAddr: "203.0.113.1:1"})
	require.NoError(t, err)
	require.Equal(t, fmt.Sprint(before), fmt.Sprint(w.stats(leader).GetPeers()))
	_, err = produce(w.ctx, w.naive(), "nobody was disturbed")
	require.NoError(t, err)
}
