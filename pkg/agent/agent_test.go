package agent_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/logd-io/logd/config"
	"github.com/logd-io/logd/pkg/agent"
	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/internal/testutil"
	"github.com/logd-io/logd/pkg/replica"
	"github.com/logd-io/logd/pkg/tlsconf"
	"github.com/logd-io/logd/pkg/tlsconf/tlstest"
)

func TestMain(m *testing.M) { testutil.VerifyMain(m) }

// patience is for a machine that hangs; no test asserts a time.
const patience = 2 * time.Minute

const cluster = "test"

// world makes nodes that can meet each other.
type world struct {
	t    *testing.T
	ca   *tlstest.CA
	dir  string
	join []string // gossip of the nodes that run
}

func newWorld(t *testing.T) *world {
	return &world{t: t, ca: tlstest.NewCA(t, cluster), dir: t.TempDir()}
}

func (w *world) files(role tlsconf.Role, name string) tlsconf.Files {
	return w.ca.Files(w.t, role, name)
}

func (w *world) config(name string, expect int) config.Node {
	f := w.files(tlsconf.RoleStorage, name)
	c := config.DefaultNode()
	c.Name, c.Cluster = name, cluster
	c.DataDir = filepath.Join(w.dir, name)
	c.BindAddr, c.Ports = "127.0.0.1", config.Ports{}
	c.BootstrapExpect = expect
	c.RetryJoin = w.join
	c.GossipKey = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	c.TLS = config.TLS{CAFile: f.CA, CertFile: f.Cert, KeyFile: f.Key}
	c.Raft.HeartbeatTimeout = time.Second
	return c
}

// node is an agent whose Run goes on until stop or Close.
type node struct {
	*agent.Agent
	t     *testing.T
	stop  context.CancelFunc
	ended chan error // Run's result, once
}

func (w *world) start(c config.Node) *node {
	w.t.Helper()
	a, err := agent.Open(c, agent.Deps{Version: "test"})
	require.NoError(w.t, err)
	return w.run(a)
}

func (w *world) run(a *agent.Agent) *node {
	ctx, cancel := context.WithCancel(context.Background())
	n := &node{Agent: a, t: w.t, stop: cancel, ended: make(chan error, 1)}
	go func() { n.ended <- a.Run(ctx) }()
	w.join = append(w.join, a.GossipAddr())
	w.t.Cleanup(func() {
		cancel()
		require.NoError(w.t, a.Close())
	})
	return n
}

// drain ends a node as SIGTERM does.
func (n *node) drain() {
	n.t.Helper()
	n.stop()
	require.NoError(n.t, <-n.ended)
	require.NoError(n.t, n.Close())
}

// crash cuts a node off.
func (n *node) crash() {
	n.t.Helper()
	require.NoError(n.t, n.Close())
	require.ErrorIs(n.t, <-n.ended, agent.ErrClosed)
}

func (n *node) until(what string, ok func(v replica.View) bool) {
	n.t.Helper()
	testutil.Eventually(n.t, patience, func() error {
		select {
		case err := <-n.ended:
			n.ended <- err
			n.t.Fatalf("%s has ended: %v", n.ID(), err)
		default:
		}
		if v := n.View(); !ok(v) {
			return fmt.Errorf("%s: waiting for: %s; %+v", n.ID(), what, v)
		}
		return nil
	})
}

func ready(v replica.View) bool { return v.Ready && v.LeaderID != "" }

func leaderOf(t *testing.T, nodes ...*node) (leader *node) {
	t.Helper()
	testutil.Eventually(t, patience, func() error {
		for _, n := range nodes {
			if n.View().IsLeader {
				leader = n
				return nil
			}
		}
		return errors.New("nobody leads")
	})
	return leader
}

func (w *world) client(n *node) logv1.LogClient {
	w.t.Helper()
	src, err := tlsconf.Load(w.files(tlsconf.RoleClient, "somebody"))
	require.NoError(w.t, err)
	conn, err := grpc.NewClient("passthrough:///"+n.Addr(),
		grpc.WithTransportCredentials(credentials.NewTLS(src.Client(tlsconf.ALPNgRPC, tlsconf.RoleStorage, ""))))
	require.NoError(w.t, err)
	w.t.Cleanup(func() { require.NoError(w.t, conn.Close()) })
	return logv1.NewLogClient(conn)
}

// produce appends at the one of nodes that leads, which may be another by the time it is
// asked: a busy machine is enough for an election.
func (w *world) produce(value string, nodes ...*node) (offset uint64) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	testutil.Eventually(w.t, patience, func() error {
		resp, err := w.client(leaderOf(w.t, nodes...)).Produce(ctx, &logv1.ProduceRequest{Record: &logv1.Record{Value: []byte(value)}})
		if apierr.ReasonOf(err) == apierr.ReasonNotLeader {
			return err
		}
		require.NoError(w.t, err)
		offset = resp.GetOffset()
		return nil
	})
	return offset
}

// requireReads reads one record from a node, waiting until it is there.
func (w *world) requireReads(n *node, off uint64, value string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	s, err := w.client(n).ConsumeStream(ctx, &logv1.ConsumeRequest{Offset: off})
	require.NoError(w.t, err)
	resp, err := s.Recv()
	require.NoError(w.t, err)
	require.Equal(w.t, value, string(resp.GetRecord().GetValue()))
	require.Equal(w.t, off, resp.GetRecord().GetOffset())
}

// Three nodes that start at once, in any order, become one cluster.
func TestThreeAtOnceAreOneCluster(t *testing.T) {
	rounds := 10
	if testing.Short() {
		rounds = 2
	}
	for round := range rounds {
		t.Run(strconv.Itoa(round), func(t *testing.T) {
			w := newWorld(t)
			var agents []*agent.Agent
			for i := range 3 {
				a, err := agent.Open(w.config(fmt.Sprintf("n%d", i+1), 3), agent.Deps{})
				require.NoError(t, err)
				agents = append(agents, a)
				w.join = append(w.join, a.GossipAddr()) // the later ones know the earlier
			}
			rand.Shuffle(len(agents), func(i, j int) { agents[i], agents[j] = agents[j], agents[i] })
			var nodes []*node
			for _, a := range agents {
				nodes = append(nodes, w.run(a))
			}
			for _, n := range nodes {
				n.until("ready", ready)
			}
			for _, n := range nodes {
				require.Equal(t, nodes[0].View().ClusterID, n.View().ClusterID)
				require.Len(t, n.View().Peers, 3)
				for _, p := range n.View().Peers {
					require.True(t, p.Voter)
				}
			}
			off := w.produce("hello", nodes...)
			for _, n := range nodes {
				w.requireReads(n, off, "hello")
			}
		})
	}
}

func (w *world) three() []*node {
	w.t.Helper()
	var nodes []*node
	for i := range 3 {
		nodes = append(nodes, w.start(w.config(fmt.Sprintf("n%d", i+1), 3)))
	}
	for _, n := range nodes {
		n.until("ready", ready)
	}
	return nodes
}

func TestFourthNodeIsTakenInAndPromoted(t *testing.T) {
	w := newWorld(t)
	nodes := w.three()
	off := w.produce("before it came", nodes...)
	fourth := w.start(w.config("n4", 0))
	fourth.until("a voter", func(v replica.View) bool {
		for _, p := range v.Peers {
			if p.ID == fourth.ID() {
				return p.Voter && v.Ready
			}
		}
		return false
	})
	w.requireReads(fourth, off, "before it came")
}

func TestLeaderCrashesAndComesBackOnItsPorts(t *testing.T) {
	w := newWorld(t)
	nodes := w.three()
	off := w.produce("before", nodes...)
	old := leaderOf(t, nodes...)
	addr, gossip, admin := old.Addr(), old.GossipAddr(), old.AdminAddr()
	id := old.ID()
	old.crash()
	var rest []*node
	var name string
	for _, n := range nodes {
		if n != old {
			rest = append(rest, n)
		}
	}
	name = strings.SplitN(id, ".", 2)[0]
	require.Equal(t, off+1, w.produce("after", rest...))

	conf := w.config(name, 3)
	conf.RetryJoin = nil // it remembers
	back := w.start(conf)
	require.Equal(t, id, back.ID())
	require.Equal(t, []string{addr, gossip, admin}, []string{back.Addr(), back.GossipAddr(), back.AdminAddr()})
	back.until("ready", ready)
	w.requireReads(back, off+1, "after")
}

// SIGTERM hands leadership on, and takes nobody out of the cluster.
func TestDrainHandsLeadershipOn(t *testing.T) {
	w := newWorld(t)
	nodes := w.three()
	old := leaderOf(t, nodes...)
	term := old.View().Term
	old.drain()
	var rest []*node
	for _, n := range nodes {
		if n != old {
			rest = append(rest, n)
		}
	}
	next := leaderOf(t, rest...)
	require.Equal(t, term+1, next.View().Term, "one transfer, not an election that had to be repeated")
	require.Len(t, next.View().Peers, 3)
	w.produce("goes on", rest...)
}

// A node with another name's certificate, a certificate for something else, a
// directory in use, a port in use: each is said, and nothing is left open.
func TestOpenSaysWhatIsWrong(t *testing.T) {
	w := newWorld(t)
	first := w.start(w.config("n1", 1))
	first.until("ready", ready)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	_, port, err := net.SplitHostPort(taken.Addr().String())
	require.NoError(t, err)
	number, err := strconv.Atoi(port)
	require.NoError(t, err)

	for name, tc := range map[string]struct {
		change func(*config.Node)
		says   []string
	}{
		"directory in use": {
			func(c *config.Node) { c.DataDir = filepath.Join(w.dir, "n1") }, []string{filepath.Join(w.dir, "n1"), "in use"},
		},
		"RPC port in use":    {func(c *config.Node) { c.Ports.RPC = number }, []string{port, "in use"}},
		"gossip port in use": {func(c *config.Node) { c.Ports.Gossip = number }, []string{port, "in use"}},
		"admin port in use":  {func(c *config.Node) { c.Ports.Admin = number }, []string{port, "in use"}},
		"certificate of a client": {
			func(c *config.Node) {
				f := w.files(tlsconf.RoleClient, "n2")
				c.TLS = config.TLS{CAFile: f.CA, CertFile: f.Cert, KeyFile: f.Key}
			}, []string{"client", "storage"},
		},
		"another name":    {func(c *config.Node) { c.Name = "n7" }, []string{"n7", "n2"}},
		"another cluster": {func(c *config.Node) { c.Cluster = "prod" }, []string{"prod", cluster}},
		"no certificate":  {func(c *config.Node) { c.TLS.CertFile = "/nowhere.pem" }, []string{"/nowhere.pem"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := w.config("n2", 1)
			c.DataDir = t.TempDir()
			tc.change(&c)
			_, err := agent.Open(c, agent.Deps{})
			require.Error(t, err)
			for _, s := range tc.says {
				require.Contains(t, err.Error(), s)
			}
		})
	}
	w.produce("undisturbed", first)
}

// A node that lost its log and kept its id does not come back as if it still had
// what it acknowledged.
func TestNodeThatLostItsLogIsRefused(t *testing.T) {
	w := newWorld(t)
	c := w.config("n1", 1)
	a, err := agent.Open(c, agent.Deps{})
	require.NoError(t, err)
	require.NoError(t, a.Close())
	a, err = agent.Open(c, agent.Deps{})
	require.NoError(t, err)
	id := a.ID()
	require.NoError(t, a.Close())
	lost := filepath.Join(c.DataDir, "raft")
	require.NoError(t, os.RemoveAll(lost))
	for range 2 {
		_, err = agent.Open(c, agent.Deps{})
		require.ErrorContains(t, err, lost)
		require.ErrorContains(t, err, id)
	}
	require.NoError(t, os.RemoveAll(c.DataDir))
	a, err = agent.Open(c, agent.Deps{})
	require.NoError(t, err)
	require.NotEqual(t, id, a.ID())
	require.NoError(t, a.Close())
}

// A wiped disk is another node, and its name is not free before the old id is
// removed.
func TestWipedNodeIsRefusedUntilItsOldIDIsRemoved(t *testing.T) {
	w := newWorld(t)
	nodes := w.three()
	leader := leaderOf(t, nodes...)
	var victim *node
	for _, n := range nodes {
		if n != leader {
			victim = n
		}
	}
	old := victim.ID()
	name := strings.SplitN(old, ".", 2)[0]
	victim.crash()
	require.NoError(t, os.RemoveAll(filepath.Join(w.dir, name)))

	back := w.start(w.config(name, 3))
	require.NotEqual(t, old, back.ID())
	testutil.Eventually(t, patience, func() error {
		if why := back.NotReady(); !strings.Contains(strings.Join(why, " "), old) {
			return fmt.Errorf("not refused by name: %q", why)
		}
		return nil
	})
	for _, p := range leader.View().Peers {
		require.NotEqual(t, back.ID(), p.ID)
	}
}
