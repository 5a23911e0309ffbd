package control

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/discovery"
	"github.com/logd-io/logd/pkg/proxy/route"
	"github.com/logd-io/logd/pkg/proxy/upstream"
)

// loop is what Run's goroutine knows. No other goroutine touches it.
type loop struct {
	c       *Control
	ctx     context.Context //nolint:containedctx // Run's; loop lives inside Run
	workers *sync.WaitGroup // everything started for a link
	log     hclog.Logger

	sets    [][]discovery.Node // newest of each source
	seeds   map[string]*seed   // by address
	members map[string]*member // by id

	cluster string // the pinned uuid; once set, never changes
	lead    leadership
	peers   peers
	hinted  discovery.Node // the leader of lead.term by a NotLeader answer that gave its address

	shown string // route of the newest table in words, for the log
}

// peers is the Raft configuration by the best view so far.
type peers struct {
	term       uint64
	fromLeader bool // at term; then only the leader's word replaces it
	list       []*nodev1.Peer
}

func newLoop(ctx context.Context, c *Control, workers *sync.WaitGroup) *loop {
	return &loop{
		c: c, ctx: ctx, workers: workers, log: c.log,
		sets:    make([][]discovery.Node, len(c.cfg.Sources)),
		seeds:   map[string]*seed{},
		members: map[string]*member{},
	}
}

// close lets go of what the Pool does not own.
func (l *loop) close() {
	for _, s := range l.seeds {
		l.closeSeed(s)
	}
}

// open starts to follow the connection to n.
func (l *loop) open(n *upstream.Node) *link {
	k := &link{node: n, state: connectivity.Idle}
	k.ctx, k.cancel = context.WithCancel(l.ctx)
	l.workers.Go(func() { l.c.follow(k) })
	return k
}

func (l *loop) closeSeed(s *seed) {
	if s.link != nil {
		s.cancel()
		_ = s.node.Close() // only control used it
		s.link = nil
	}
}

// owner finds what k belongs to now; neither: it was let go.
func (l *loop) owner(k *link) (*member, *seed) {
	if m := l.members[k.node.ID()]; m != nil && m.link == k {
		return m, nil
	}
	if s := l.seeds[k.node.Addr()]; s != nil && s.link == k {
		return nil, s
	}
	return nil, nil
}

// connection takes in the state of k's connection.
func (l *loop) connection(k *link, s connectivity.State) {
	k.state = s
	if s == connectivity.Ready {
		k.retryAt = time.Time{} // whatever ended the last watch, this is another connection
	} else {
		k.met = false
	}
	if k.broken() {
		// It may come back as anything: empty, behind, in another cluster.
		k.other = ""
		if m, _ := l.owner(k); m != nil {
			m.saw(nil, time.Time{})
			m.alien = ""
		}
	}
}

// watchEnded takes in that k's watch is over; err is nil when it was told to end.
func (l *loop) watchEnded(k *link, err error) {
	k.stopWatch()
	k.stopWatch = nil
	wasLive := k.live
	k.live = false
	if err == nil || k.ctx.Err() != nil {
		return
	}
	if wasLive {
		k.barren = 0
	} else {
		k.barren++
	}
	k.retryAt = time.Now().Add(retryIn(k.barren))
	reason := reasonOf(err)
	l.c.metrics.watchEnds.WithLabelValues(reason).Inc()
	l.log.Debug("watch ended", "node", k.node.ID(), "addr", k.node.Addr(), "reason", reason, "err", err)
}

// viewed takes in what k's node said.
func (l *loop) viewed(k *link, v *nodev1.ClusterView) {
	k.live = true
	k.met, k.other = false, ""
	if v.ClusterId != "" && l.cluster != "" && v.ClusterId != l.cluster {
		k.other = v.ClusterId
	}
	m, s := l.owner(k)
	switch {
	case m != nil:
		if why := l.alien(m.id, v); why != "" {
			l.c.metrics.aliens.Inc()
			if m.alien != why {
				l.log.Error("a node is not what it should be, and gets no request", "node", m.id, "addr", m.node.Addr(), "err", why)
			}
			m.alien = why
			m.saw(nil, time.Time{})
			return
		}
		m.alien, k.met = "", v.ClusterId != ""
		m.saw(v, time.Now())
	case s != nil:
		if why := l.alien(v.NodeId, v); why != "" {
			l.c.metrics.aliens.Inc()
			if s.alien != why {
				l.log.Error("an address leads to a node that does not belong here", "addr", s.node.Addr(), "node", v.NodeId, "err", why)
			}
			s.id, s.alien = "", why
			return
		}
		s.id, s.alien = v.NodeId, ""
	default:
		return
	}
	l.learn(v)
}

// alien answers why v, from the node that should be id, counts for nothing;
// empty: it counts.
func (l *loop) alien(id string, v *nodev1.ClusterView) string {
	switch {
	case v.ClusterId != "" && l.cluster != "" && v.ClusterId != l.cluster:
		return "it belongs to cluster " + v.ClusterId + ", not " + l.cluster
	case v.NodeId != id:
		return "it calls itself " + v.NodeId
	}
	return ""
}

// learn takes in what v says of the cluster. A node in no cluster says nothing.
func (l *loop) learn(v *nodev1.ClusterView) {
	if v.ClusterId == "" {
		return
	}
	if l.cluster == "" {
		l.cluster = v.ClusterId
		l.log.Info("cluster found", "cluster", v.ClusterId, "node", v.NodeId)
	}
	l.hear(v.NodeId, v.Term, v.LeaderId)
	fromLeader := v.NodeId == v.LeaderId
	switch {
	case len(v.Peers) == 0:
	case v.Term < l.peers.term:
	case v.Term == l.peers.term && l.peers.fromLeader && !fromLeader:
	default:
		l.peers = peers{term: v.Term, fromLeader: fromLeader, list: v.Peers}
	}
}

func (l *loop) hear(from string, term uint64, leader string) {
	if term > l.lead.term {
		l.hinted = discovery.Node{}
	}
	if l.lead.hear(from, term, leader) {
		l.log.Error("two nodes are said to lead one term", "term", term, "leader", l.lead.leader, "other", leader, "node", from)
	}
}

// notLeader takes in a node's refusal.
func (l *loop) notLeader(from, leader, addr string, term uint64) {
	m := l.members[from]
	if m == nil || m.alien != "" {
		return // it was asked by a table that is no more
	}
	l.hear(from, term, leader)
	if leader != "" && addr != "" && leader == l.lead.leader && term == l.lead.term {
		l.hinted = discovery.Node{ID: leader, RPCAddr: addr}
	}
}

// failed takes in that a request failed on a node. It costs a leader nothing:
// there is no other.
func (l *loop) failed(id string, err error) {
	m := l.members[id]
	if m == nil || id == l.lead.current() || status.Code(err) == codes.Canceled {
		return // canceled: its connection was let go, since the node has gone or moved
	}
	if m.fail(time.Now(), m.node.Answers(), l.c.cfg.EjectBase) {
		l.c.metrics.ejections.Inc()
		m.failure = err.Error()
		l.log.Warn("requests fail on a node; it rests", "node", id, "failures", m.inARow, "until", m.restsUntil, "err", err)
	}
}

// addresses are the nodes there are: what the sources say, what seeds have turned
// out to be, and those in Raft's configuration or named leader that neither
// knows.
func (l *loop) addresses() map[string]string {
	all := map[string]string{}
	add := func(id, addr string) {
		if _, known := all[id]; !known && id != "" && addr != "" {
			all[id] = addr
		}
	}
	for _, set := range l.sets {
		for _, n := range set {
			add(n.ID, n.RPCAddr)
		}
	}
	for _, p := range l.peers.list {
		add(p.Id, p.RpcAddr)
		if m := l.members[p.Id]; m != nil {
			add(p.Id, m.node.Addr()) // a node that no longer serves announces none
		}
	}
	for addr, s := range l.seeds {
		add(s.id, addr)
	}
	add(l.hinted.ID, l.hinted.RPCAddr)
	return all
}

// settle makes everything follow from what is known: connections, watches and the
// table. It answers when time alone will change something; zero: never.
func (l *loop) settle(now time.Time) (next time.Time) {
	l.settleSeeds()
	l.settleMembers()
	ms := l.sorted()
	l.choose(ms)
	sooner := func(t time.Time) {
		if t.After(now) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	for _, m := range ms {
		if m.chosen {
			l.ensureWatch(m.link, now)
		} else {
			m.saw(nil, now) // it would grow old unseen
			if m.stopWatch != nil {
				m.stopWatch()
			}
		}
		sooner(m.retryAt)
		sooner(m.restsUntil)
		if !m.leaderless.IsZero() {
			sooner(m.leaderless.Add(l.c.cfg.StallAfter))
		}
	}
	for _, s := range l.seeds {
		if s.link != nil {
			l.ensureWatch(s.link, now)
			sooner(s.retryAt)
		}
	}
	l.publish(ms, now)
	return next
}

// settleSeeds keeps a connection to every address whose node is not known, or is
// known and silent: another may have come in its place.
func (l *loop) settleSeeds() {
	want := map[string]bool{}
	for _, set := range l.sets {
		for _, n := range set {
			if n.ID == "" {
				want[n.RPCAddr] = true
			}
		}
	}
	for addr, s := range l.seeds {
		if !want[addr] {
			l.closeSeed(s)
			delete(l.seeds, addr)
		}
	}
	for addr := range want {
		s := l.seeds[addr]
		if s == nil {
			s = &seed{}
			l.seeds[addr] = s
		}
		m := l.members[s.id]
		if known := m != nil && m.live && m.alien == ""; known {
			l.closeSeed(s)
			continue
		}
		if s.link == nil {
			n, err := l.c.cfg.Pool.Dial(addr)
			if err != nil {
				l.log.Error("an address cannot be used", "addr", addr, "err", err)
				continue
			}
			s.link = l.open(n)
		}
	}
}

// settleMembers has one member and one Pool node for every known node.
func (l *loop) settleMembers() {
	all := l.addresses()
	for id, m := range l.members {
		if _, there := all[id]; !there {
			l.log.Info("node gone", "node", id, "addr", m.node.Addr())
			m.cancel()
			l.c.cfg.Pool.Remove(id)
			delete(l.members, id)
		}
	}
	for id, addr := range all {
		m := l.members[id]
		if m != nil && m.node.Addr() == addr {
			continue
		}
		n, err := l.c.cfg.Pool.Ensure(id, addr)
		if err != nil {
			l.log.Error("a node cannot be used", "node", id, "addr", addr, "err", err)
			continue
		}
		if m == nil {
			l.log.Info("node found", "node", id, "addr", addr)
		} else {
			l.log.Info("node moved", "node", id, "addr", addr, "from", m.node.Addr())
			m.cancel()
		}
		l.members[id] = &member{id: id, link: l.open(n)}
	}
}

func (l *loop) sorted() []*member {
	ms := make([]*member, 0, len(l.members))
	for _, m := range l.members {
		ms = append(ms, m)
	}
	slices.SortFunc(ms, func(a, b *member) int { return strings.Compare(a.id, b.id) })
	return ms
}

// choose says which members to watch: all of a few; of many the leader, then
// those whose watches deliver, then those that have disappointed least. Beyond the
// limit it has as many again watched until they have been met: on its connection
// alone nobody is read from, since behind an address there may be another cluster.
func (l *loop) choose(sorted []*member) {
	rank := func(m *member) int {
		switch {
		case m.id == l.lead.current():
			return 0
		case m.alien != "": // for as long as its connection lasts
			return 999
		case m.live:
			return 1
		case m.broken():
			return 1000
		}
		return 2 + min(m.barren, 100)
	}
	byRank := slices.Clone(sorted)
	slices.SortStableFunc(byRank, func(a, b *member) int { return rank(a) - rank(b) })
	strangers := 0
	for i, m := range byRank {
		m.chosen = i < l.c.cfg.WatchLimit
		if !m.chosen && !m.met && m.alien == "" && m.state == connectivity.Ready && strangers < l.c.cfg.WatchLimit {
			m.chosen = true
			strangers++
		}
	}
}

// ensureWatch opens k's watch if it has none and one may succeed.
func (l *loop) ensureWatch(k *link, now time.Time) {
	if k.stopWatch != nil || k.state != connectivity.Ready || now.Before(k.retryAt) {
		return
	}
	ctx, cancel := context.WithCancel(k.ctx)
	k.stopWatch = cancel
	l.workers.Go(func() { l.c.watch(ctx, k) })
}

// publish puts a new table in place if it differs from the last.
func (l *loop) publish(ms []*member, now time.Time) {
	spec := route.Spec{
		ClusterID: l.cluster, Term: l.lead.term, Policy: l.c.cfg.Policy,
		Nodes: make(map[string]route.Upstream, len(ms)),
	}
	leader := l.lead.current()
	for _, m := range ms {
		spec.Nodes[m.id] = m.node
		if m.id == leader && m.leads() {
			spec.Leader = m.node
		}
	}
	spec.Followers = followers(ms, leader, spec.Leader != nil, l.c.cfg.MaxLag, l.c.cfg.StallAfter, now)
	l.tell(l.c.status.Swap(l.describe(ms, &spec, now)), l.c.status.Load())

	old := l.c.cfg.Holder.Load()
	if same(&old.Spec, &spec) {
		return
	}
	l.c.cfg.Holder.Publish(route.New(spec))
	l.c.metrics.tables.Inc()
	if old.Leader != spec.Leader {
		l.c.metrics.leaderChanges.Inc()
		if spec.Leader != nil {
			l.log.Info("produces go to the leader", "leader", leader, "addr", spec.Leader.Addr(), "term", spec.Term)
		} else {
			l.log.Warn("no leader to be reached; produces are held", "leader", leader, "term", spec.Term)
		}
	}
	var ids []string
	for _, f := range spec.Followers {
		ids = append(ids, f.ID())
	}
	if shown := strings.Join(ids, " "); shown != l.shown {
		l.shown = shown
		l.log.Info("reads go to the followers", "nodes", shown, "term", spec.Term)
	}
}

// same says that two tables would route alike.
func same(a, b *route.Spec) bool {
	if a.ClusterID != b.ClusterID || a.Term != b.Term || a.Leader != b.Leader ||
		!slices.Equal(a.Followers, b.Followers) || len(a.Nodes) != len(b.Nodes) {
		return false
	}
	for id, n := range a.Nodes {
		if b.Nodes[id] != n {
			return false
		}
	}
	return true
}
