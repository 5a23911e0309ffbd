package e2e_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/test/harness"
	"github.com/logd-io/logd/test/smart"
)

// strangerTLS is what a program has that knows nothing of us: a CA, a certificate, and
// the library's own check of host names.
func (w *world) strangerTLS() credentials.TransportCredentials {
	w.t.Helper()
	f := w.Cert("client")
	pem, err := os.ReadFile(f.CA)
	require.NoError(w.t, err)
	roots := x509.NewCertPool()
	require.True(w.t, roots.AppendCertsFromPEM(pem))
	cert, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	require.NoError(w.t, err)
	return credentials.NewTLS(&tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13})
}

func (w *world) smart(address string, opt smart.Options) *grpc.ClientConn {
	w.t.Helper()
	conn, err := smart.Dial(address, opt)
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// smartLog is what was acknowledged to a client that balances by itself: value by
// offset.
type smartLog map[uint64]string

// add produces one record more, and tells which node took it.
func (l smartLog) add(ctx context.Context, conn *grpc.ClientConn) (node string, err error) {
	var from peer.Peer
	value := fmt.Sprint("record ", len(l))
	resp, err := logv1.NewLogClient(conn).Produce(ctx, &logv1.ProduceRequest{Record: &logv1.Record{Value: []byte(value)}}, grpc.Peer(&from))
	if err != nil {
		return "", err
	}
	if old, taken := l[resp.GetOffset()]; taken {
		return "", fmt.Errorf("offset %d was given to %q before", resp.GetOffset(), old)
	}
	l[resp.GetOffset()] = value
	return from.Addr.String(), nil
}

// addAt produces 20 records, which go to the leader.
func (w *world) addAt(leader *harness.Node, conn *grpc.ClientConn, l smartLog) error {
	for range 20 {
		node, err := l.add(w.ctx, conn)
		if err != nil {
			return err
		}
		if node != leader.RPC {
			return fmt.Errorf("%s took one, and %s leads", node, leader.RPC)
		}
	}
	return nil
}

// consumeEach reads all of l, a call each, and tells who answered how many. A follower
// may be a moment behind what the leader has acknowledged, and says so; that is
// asked again.
func (w *world) consumeEach(conn *grpc.ClientConn, l smartLog) map[string]int {
	w.t.Helper()
	by := map[string]int{}
	for off, want := range l {
		w.until(fmt.Sprintf("consume %d", off), func() error {
			var from peer.Peer
			resp, err := logv1.NewLogClient(conn).Consume(w.ctx, &logv1.ConsumeRequest{Offset: off}, grpc.Peer(&from))
			if apierr.ReasonOf(err) == apierr.ReasonBehind {
				return err
			}
			if err != nil {
				return harness.Ended(err)
			}
			if got := string(resp.GetRecord().GetValue()); got != want {
				return harness.Ended(fmt.Errorf("offset %d holds %q", off, got))
			}
			by[from.Addr.String()]++
			return nil
		})
	}
	return by
}

// (a) Directly at the nodes: produces go to the leader, consumes to the followers
// alike. When the leader is killed the client sees the calls fail that were under
// way, at most, and by itself goes on with the next leader: the broken connection
// makes it ask again, for as long as it stays broken.
func TestSmartClientAtTheNodes(t *testing.T) {
	w := start(t)
	var conn *grpc.ClientConn
	var log smartLog
	var old *harness.Node
	w.underOneLeader(func(leader *harness.Node) error {
		conn, log, old = w.smart(w.follower().RPC, smart.Options{Servers: w.strangerTLS()}), smartLog{}, leader
		if err := w.addAt(leader, conn, log); err != nil {
			return err
		}
		w.until("the followers have them all, and the client is connected to both", func() error {
			// What one that is behind leaves to the other would be no balance.
			for _, node := range w.Nodes {
				if _, err := w.ReadNode(w.ctx, node, slices.Max(slices.Collect(maps.Keys(log)))+1); err != nil {
					return err
				}
			}
			if by := w.consumeEach(conn, log); len(by) < 2 {
				return fmt.Errorf("only to %v", by)
			}
			return nil
		})
		by := w.consumeEach(conn, log)
		for _, node := range w.Nodes {
			if n := by[node.RPC]; node == leader && n > 0 || node != leader && (n < 6 || n > 14) {
				return fmt.Errorf("the reads went to %v", by)
			}
		}
		return nil
	})

	require.NoError(t, old.Kill())
	var refused []error
	w.until("the client has found the next leader", func() error {
		ctx, cancel := context.WithTimeout(w.ctx, 2*time.Second)
		defer cancel()
		_, err := log.add(ctx, conn)
		if err != nil {
			refused = append(refused, err)
		}
		return err
	})
	t.Logf("%d produces failed meanwhile: %v", len(refused), refused)
	for _, err := range refused {
		// No connection, no known leader in time, or a node that no longer or not yet
		// leads: never a wrong answer.
		require.Contains(t, []codes.Code{codes.Unavailable, codes.DeadlineExceeded, codes.FailedPrecondition, codes.Aborted}, status.Code(err), "%v", err)
	}
	for range 20 {
		_, err := log.add(w.ctx, conn)
		require.NoError(t, err)
	}
	w.consumeEach(conn, log)
}

// (a) When leadership moves and no connection breaks, nothing makes the book's client
// ask again: it is refused, with the name and address of the node that leads, and
// one that asks on a refusal goes on there.
func TestSmartClientWhenLeadershipMoves(t *testing.T) {
	w := start(t)
	creds := w.strangerTLS()
	var stays, asks *grpc.ClientConn
	w.underOneLeader(func(leader *harness.Node) error {
		stays = w.smart(leader.RPC, smart.Options{Servers: creds})
		asks = w.smart(leader.RPC, smart.Options{Servers: creds, AskOnRefusal: true})
		for _, conn := range []*grpc.ClientConn{stays, asks} {
			if _, err := produce(w.ctx, conn, "before"); err != nil {
				return err
			}
		}
		return w.handsOn(leader)
	})

	w.until("the client that asks goes on", func() error {
		_, err := produce(w.ctx, asks, "after")
		return err
	})
	w.underOneLeader(func(leader *harness.Node) error {
		_, err := produce(w.ctx, stays, "after")
		return w.namesTheLeader(err, leader)
	})
}

// handsOn has leader hand leadership on, and tells what is wrong with what it says of it.
func (w *world) handsOn(leader *harness.Node) error {
	w.t.Helper()
	admin := nodev1.NewNodeClient(w.dial("admin", leader))
	var resp *nodev1.TransferLeadershipResponse
	var failed error
	w.until("leadership is handed on", func() error {
		resp, failed = admin.TransferLeadership(w.ctx, &nodev1.TransferLeadershipRequest{})
		if failed != nil && w.leader() == leader {
			return failed // Raft gives up on one that does not stand for election in time
		}
		return nil
	})
	if failed != nil {
		return fmt.Errorf("%s does not lead any more, and was told to hand leadership on: %w", leader.Name, failed)
	}
	next := w.leader()
	if id := w.stats(next).GetNodeId(); next == leader || id != resp.GetLeaderId() {
		return fmt.Errorf("%s leads, and %s has said that %s does", id, leader.Name, resp.GetLeaderId())
	}
	return nil
}

// (b) Behind a proxy, which names itself as the leader of one: no follower is behind,
// and a dead leader is a pause and no error.
func TestSmartClientBehindAProxy(t *testing.T) {
	t.Parallel()
	for name, listener := range map[string]string{"tcp": "", "unix": "unix://" + filepath.Join(shortDir(t), "p.sock")} {
		t.Run(name, func(t *testing.T) {
			w := prepare(t, nil)
			if listener != "" {
				w.proxy.Addr = listener
				w.proxy.Args = append(w.proxy.Args, "-listener-address", listener)
			}
			require.NoError(t, w.Start())
			require.NoError(t, w.Ready(w.ctx))
			conn := w.smart(w.proxy.Addr, smart.Options{Servers: insecure.NewCredentials()})

			resp, err := logv1.NewLogClient(conn).GetServers(w.ctx, &logv1.GetServersRequest{})
			require.NoError(t, err)
			require.Len(t, resp.GetServers(), 1)
			require.Equal(t, w.proxy.Addr, resp.GetServers()[0].GetRpcAddr())
			require.True(t, resp.GetServers()[0].GetIsLeader())

			// Each client reads what it has written, with no pause between.
			const clients, enough = 4, 400
			var done, atKill atomic.Int64
			killed := make(chan struct{})
			var wg sync.WaitGroup
			for c := range clients {
				wg.Go(func() {
					for i := 0; ; i++ {
						value := fmt.Sprintf("client %d record %d", c, i)
						off, err := produce(w.ctx, conn, value)
						if err != nil {
							t.Errorf("%s: %v", value, err)
							return
						}
						got, err := logv1.NewLogClient(conn).Consume(w.ctx, &logv1.ConsumeRequest{Offset: off})
						if err != nil || string(got.GetRecord().GetValue()) != value {
							t.Errorf("%s at %d: %v, %v", value, off, got, err)
							return
						}
						n := done.Add(1)
						select {
						case <-killed:
							if n > atKill.Load()+enough {
								return
							}
						default:
						}
					}
				})
			}
			w.until("some traffic", func() error {
				if n := done.Load(); n < enough && !t.Failed() {
					return fmt.Errorf("%d reads", n)
				}
				return nil
			})
			require.NoError(t, w.leader().Kill())
			atKill.Store(done.Load())
			close(killed)
			wg.Wait()
		})
	}
}

// shortDir is a folder whose path leaves room for a socket's name.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "smart")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

// (c) A proxy that names the nodes is asked who they are, and is never in the way of a
// record. It knows the next leader before the client asks, whoever has died.
func TestSmartClientToldOfTheNodesByAProxy(t *testing.T) {
	w := prepare(t, nil)
	directory, err := w.AddProxy(`get_servers = "cluster"`)
	require.NoError(t, err)
	require.NoError(t, w.Start())
	require.NoError(t, w.Ready(w.ctx))
	nodes := []string{w.Nodes[0].RPC, w.Nodes[1].RPC, w.Nodes[2].RPC}
	var conn *grpc.ClientConn
	var log smartLog
	var old *harness.Node
	w.underOneLeader(func(leader *harness.Node) error {
		old, log = leader, smartLog{}
		conn = w.smart(directory.Addr, smart.Options{Servers: w.strangerTLS(), Ask: insecure.NewCredentials()})
		if err := w.addAt(leader, conn, log); err != nil {
			return err
		}
		for addr := range w.consumeEach(conn, log) {
			require.Contains(t, nodes, addr)
			if addr == leader.RPC {
				return errors.New("a read went to the leader")
			}
		}
		return nil
	})

	require.NoError(t, old.Kill())
	w.until("the client has found the next leader", func() error {
		ctx, cancel := context.WithTimeout(w.ctx, 2*time.Second)
		defer cancel()
		_, err := log.add(ctx, conn)
		return err
	})
	w.consumeEach(conn, log)
	naive, err := harness.Naive(directory.Addr)
	require.NoError(t, err)
	defer naive.Close()
	resp, err := logv1.NewLogClient(naive).GetServers(w.ctx, &logv1.GetServersRequest{})
	require.NoError(t, err)
	var named, leading []string
	for _, s := range resp.GetServers() {
		named = append(named, s.GetRpcAddr())
		if s.GetIsLeader() {
			leading = append(leading, s.GetRpcAddr())
		}
	}
	slices.Sort(named)
	require.Equal(t, nodes, named)
	require.Equal(t, []string{w.leader().RPC}, leading)
	for _, addr := range named {
		_, _, err := net.SplitHostPort(addr)
		require.NoError(t, err)
	}
}
