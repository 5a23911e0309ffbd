package forward_test

import (
	"context"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/balance"
	"github.com/logd-io/logd/pkg/proxy/route"
)

const clusterID = "6f2c9f2e-0e6b-4b4e-9a57-0d4f1f7a7b11"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeCluster is a log that deduplicates as the real state machine does, and the
// nodes that serve it.
type fakeCluster struct {
	t      testing.TB
	holder route.Holder
	nodes  map[string]*fakeNode
	order  []string

	mu        sync.Mutex
	leader    string
	term      uint64
	records   [][]byte
	grew      chan struct{}
	producers map[string]*fakeProducer
	keys      map[string]uint64
	seen      map[string][]byte // (producer, epoch, sequence) → bytes of the batch: frozen means the same each time
	batches   []int             // counts, as appended
	lowest    uint64
}

type fakeProducer struct {
	epoch uint32
	next  uint64
	last  []fakeBatch
}

type fakeBatch struct{ first, offset uint64 }

// fakeNode is a node; the hooks run on its handlers' goroutines.
type fakeNode struct {
	nodev1.UnimplementedNodeServer
	c    *fakeCluster
	id   string
	conn *grpc.ClientConn
	stop func()

	inflight atomic.Int64
	answers  atomic.Int64 // that the forwarder says it gave

	mu        sync.Mutex
	dead      chan struct{}                       // closed: calls fail as with a broken connection
	frozen    chan struct{}                       // not nil: calls make no progress until it is closed
	lag       uint64                              // how far visible is behind
	tooOld    uint64                              // what it has given up beyond the others
	onStream  func(principal string) <-chan error // ends Append streams of theirs; nil: none
	onAppend  func(*nodev1.AppendRequest) error
	onAcked   func(*nodev1.AppendRequest) error
	onFetch   func(*nodev1.FetchRequest) error
	onBatch   func(*nodev1.Batch) *nodev1.Batch
	noBeat    bool
	tails     *ending // of the FetchStreams that are open
	onOffsets func() error
	mds       []metadata.MD
	fetches   []*nodev1.FetchRequest
	appends   int
	streams   int
}

// ending ends what waits for it.
type ending struct {
	over chan struct{}
	err  error // set before over is closed
}

func newEnding() *ending { return &ending{over: make(chan struct{})} }

var errCut = status.Error(codes.Unavailable, "connection cut")

func newCluster(t testing.TB, ids ...string) *fakeCluster {
	c := &fakeCluster{
		t: t, nodes: map[string]*fakeNode{}, order: ids, grew: make(chan struct{}),
		producers: map[string]*fakeProducer{}, keys: map[string]uint64{}, seen: map[string][]byte{},
	}
	for _, id := range ids {
		n := &fakeNode{c: c, id: id, dead: make(chan struct{}), tails: newEnding()}
		lis := bufconn.Listen(1 << 20)
		s := grpc.NewServer()
		nodev1.RegisterNodeServer(s, n)
		go func() { _ = s.Serve(lis) }()
		conn, err := grpc.NewClient("passthrough:///"+id, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
		require.NoError(t, err)
		n.conn = conn
		n.stop = sync.OnceFunc(func() { n.kill(); n.thaw(); _ = conn.Close(); s.Stop() })
		t.Cleanup(n.stop)
		c.nodes[id] = n
	}
	c.publish()
	return c
}

func (n *fakeNode) ID() string                     { return n.id }
func (n *fakeNode) InFlight() int64                { return n.inflight.Load() }
func (n *fakeNode) Addr() string                   { return n.id + ":8400" }
func (n *fakeNode) Conn() grpc.ClientConnInterface { return n.conn }
func (n *fakeNode) Answered()                      { n.answers.Add(1) }

func (n *fakeNode) Acquire() func() {
	n.inflight.Add(1)
	return sync.OnceFunc(func() { n.inflight.Add(-1) })
}

func (n *fakeNode) set(fn func()) { n.mu.Lock(); defer n.mu.Unlock(); fn() }

func (n *fakeNode) kill() {
	n.set(func() {
		select {
		case <-n.dead:
		default:
			close(n.dead)
		}
	})
}

func (n *fakeNode) revive() { n.set(func() { n.dead = make(chan struct{}) }) }
func (n *fakeNode) freeze() { n.set(func() { n.frozen = make(chan struct{}) }) }

func (n *fakeNode) thaw() {
	n.set(func() {
		if n.frozen != nil {
			close(n.frozen)
			n.frozen = nil
		}
	})
}

// endTails ends the open FetchStreams with err; nil is a clean end.
func (n *fakeNode) endTails(err error) {
	n.set(func() {
		n.tails.err = err
		close(n.tails.over)
		n.tails = newEnding()
	})
}

// alive waits while the node is frozen, and fails when it is dead.
func (n *fakeNode) alive(ctx context.Context) error {
	n.mu.Lock()
	dead, frozen := n.dead, n.frozen
	n.mu.Unlock()
	if frozen != nil {
		select {
		case <-frozen:
		case <-dead:
		case <-ctx.Done():
		}
	}
	select {
	case <-dead:
		return errCut
	default:
		return ctx.Err()
	}
}

// elect makes id the leader of a new term, without telling the proxy.
func (c *fakeCluster) elect(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leader = id
	c.term++
}

// publish tells the proxy what is true.
func (c *fakeCluster) publish() {
	c.mu.Lock()
	s := route.Spec{ClusterID: clusterID, Term: c.term, Nodes: map[string]route.Upstream{}, Policy: balance.NewRoundRobin()}
	for _, id := range c.order {
		s.Nodes[id] = c.nodes[id]
		if id == c.leader {
			s.Leader = c.nodes[id]
		} else {
			s.Followers = append(s.Followers, c.nodes[id])
		}
	}
	c.mu.Unlock()
	c.holder.Publish(route.New(s))
}

func (c *fakeCluster) lead(id string) { c.elect(id); c.publish() }

// fill puts n records into the log, record i with value "v<i>".
func (c *fakeCluster) fill(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for range n {
		raw, err := proto.Marshal(&logv1.Record{Value: []byte("v" + strconv.Itoa(len(c.records)))})
		require.NoError(c.t, err)
		c.records = append(c.records, raw)
	}
	close(c.grew)
	c.grew = make(chan struct{})
}

// values are the values in the log.
func (c *fakeCluster) values() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var vs []string
	for _, raw := range c.records {
		var r logv1.Record
		require.NoError(c.t, proto.Unmarshal(raw, &r))
		vs = append(vs, string(r.Value))
	}
	return vs
}
