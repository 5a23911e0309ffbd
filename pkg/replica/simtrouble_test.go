package replica

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// run runs f in a bubble.
func run(t *testing.T, f func()) { synctest.Test(t, func(*testing.T) { f() }) }

// play lets clients and trouble loose until the time is over, or something was
// found.
func (w *world) play() {
	stream := uint64(1000)
	begin := func(f func(*rand.Rand)) {
		stream++
		rng := rand.New(rand.NewPCG(w.opt.seed, stream))
		w.wg.Add(1)
		go func() {
			defer w.wg.Done()
			f(rng)
		}()
	}
	producers := uint64(0)
	next := func() uint64 { // producers of one bubble, but on several goroutines
		w.mu.Lock()
		defer w.mu.Unlock()
		producers++
		return producers
	}
	keyed := make([]*simKeys, 4)
	for i := range keyed {
		keyed[i] = &simKeys{}
		begin(func(rng *rand.Rand) {
			(&simProxy{w: w, rng: rng, keyed: keyed[i/2*2], next: next}).run()
		})
	}
	begin(w.anonymous)
	begin(w.reader)
	begin(w.reader)
	begin(w.weather)
	begin(w.crashes)
	begin(w.disks)
	begin(w.ghosts)
	begin(w.crafts)
	begin(w.leaders)
	begin(w.retention)
	begin(w.membership)
	w.pause(w.opt.length)
}

// weather changes how the network is.
func (w *world) weather(rng *rand.Rand) {
	for w.pause(time.Duration(1+rng.IntN(8000)) * time.Millisecond) {
		ids := w.listeners()
		if len(ids) < 2 {
			continue
		}
		n := ids[rng.IntN(len(ids))]
		var links [][2]string
		kind := rng.IntN(6)
		switch kind {
		case 0, 1: // slow, or lossy
			w.net.mu.Lock()
			w.net.delay = time.Duration(100+rng.IntN(20000)) * time.Microsecond
			w.net.breaks = rng.IntN(40) * rng.IntN(4)
			w.net.mu.Unlock()
		case 2: // nobody hears a node
			for _, x := range ids {
				links = append(links, [2]string{n, x})
			}
		case 3: // a node hears nobody
			for _, x := range ids {
				links = append(links, [2]string{x, n})
			}
		case 4: // cut off
			for _, x := range ids {
				links = append(links, [2]string{n, x}, [2]string{x, n})
			}
		case 5: // one link, one way or both
			x := ids[rng.IntN(len(ids))]
			links = append(links, [2]string{n, x})
			if rng.IntN(2) == 0 {
				links = append(links, [2]string{x, n})
			}
		}
		if len(links) > 0 {
			w.o.say(n, fmt.Sprintf("loses %d links", len(links)))
			w.net.hold(links...)
		}
		length := time.Duration(100+rng.IntN(2500)) * time.Millisecond
		if rng.IntN(6) == 0 {
			length *= 12
		}
		if !w.pause(length) {
			return
		}
		w.net.release()
		w.o.say("", "links are whole")
	}
}

func (w *world) listeners() (ids []string) {
	for _, n := range w.up() {
		ids = append(ids, n.id)
	}
	return ids
}

// crashes takes nodes down, one or all, between operations of a disk or in the
// middle of one, and lets them come back.
func (w *world) crashes(rng *rand.Rand) {
	for w.pause(time.Duration(50+rng.IntN(7000)) * time.Millisecond) {
		up := w.up()
		if len(up) == 0 {
			continue
		}
		n := up[rng.IntN(len(up))]
		if l := w.leader(); l != nil && rng.IntN(3) == 0 {
			n = l
		}
		seed := rng.Uint64()
		down := func(hosts ...*simHost) {
			for i, h := range hosts {
				if seed%3 == 0 {
					h.kill()
				} else {
					h.lose(seed + uint64(i))
				}
			}
		}
		hit := []*simHost{n.host}
		if rng.IntN(4) == 0 { // the whole site
			hit = hit[:0]
			for _, x := range up {
				hit = append(hit, x.host)
			}
		}
		if rng.IntN(4) > 0 {
			n.faulty.Store(true) // a part of a write may be seen to fail before the end
			n.disk.arm(1+rng.IntN(40), func() { down(hit...) })
			if !w.pause(time.Duration(rng.IntN(1500)) * time.Millisecond) {
				return
			}
		}
		down(hit...)
		if rng.IntN(6) == 0 { // away for longer, behind everybody's start perhaps
			w.revive(n.host, time.Duration(2+rng.IntN(40))*time.Second)
			hit = slices.DeleteFunc(hit, func(h *simHost) bool { return h == n.host })
		}
		if !w.pause(time.Duration(rng.IntN(400)) * time.Millisecond) {
			return
		}
		for _, h := range hit {
			if rng.IntN(4) > 0 {
				h.start()
			} else {
				w.revive(h, time.Duration(rng.IntN(4000))*time.Millisecond)
			}
		}
	}
}

// revive starts a machine after a while.
func (w *world) revive(h *simHost, after time.Duration) {
	w.wg.Add(1)
	go func() {
		defer w.wg.Done()
		if w.pause(after) {
			h.start()
		}
	}()
}

// disks makes disks slow, full, broken, or stuck, and whole nodes stopped: for
// one that is, the network and the disk stand still together. Whoever stopped by
// itself because of it is started again.
func (w *world) disks(rng *rand.Rand) {
	for w.pause(time.Duration(500+rng.IntN(15000)) * time.Millisecond) {
		for _, h := range w.all() {
			w.mu.Lock()
			long := h.node == nil && time.Since(h.away) > time.Minute
			w.mu.Unlock()
			if long && w.belongs(h.id) {
				h.start()
			}
		}
		up := w.up()
		if len(up) == 0 {
			continue
		}
		n := up[rng.IntN(len(up))]
		w.o.count(func(c *counts) { c.Faults++ })
		kind := rng.IntN(5)
		w.o.say(n.id, []string{"has a full disk", "has a broken disk", "has a stuck disk", "is stopped", "has a slow disk"}[kind])
		n.faulty.Store(true)
		switch kind {
		case 0:
			n.disk.full.Store(true)
			if !w.pause(time.Duration(rng.IntN(10000)) * time.Millisecond) {
				return
			}
			n.disk.full.Store(false)
		case 1:
			n.disk.broken.Store(true)
		case 2:
			n.disk.freeze()
			if !w.pause(time.Duration(rng.IntN(8000)) * time.Millisecond) {
				return
			}
			n.disk.thaw()
		case 3:
			var links [][2]string
			for _, x := range w.listeners() {
				links = append(links, [2]string{n.id, x}, [2]string{x, n.id})
			}
			w.net.hold(links...)
			n.disk.freeze()
			if !w.pause(time.Duration(rng.IntN(4000)) * time.Millisecond) {
				return
			}
			n.disk.thaw()
			w.net.release()
		case 4:
			n.disk.mu.Lock()
			n.disk.slow *= 20
			n.disk.mu.Unlock()
		}
		if rng.IntN(2) == 0 {
			w.revive(n.host, time.Duration(rng.IntN(5000))*time.Millisecond) // if it stops, or stopped
		}
	}
}

// belongs says whether a node is in the newest committed configuration.
func (w *world) belongs(id string) bool {
	voters, others := w.members()
	return slices.Contains(voters, id) || slices.Contains(others, id)
}

// ghosts lets old RPCs arrive.
func (w *world) ghosts(rng *rand.Rand) {
	for w.pause(time.Duration(rng.IntN(600)) * time.Millisecond) {
		w.net.ghost(simCluster)
	}
}

// crafts lets a checkpoint arrive that the leader might have sent: from any node,
// for before, inside or beyond the log of the one that gets it.
func (w *world) crafts(rng *rand.Rand) {
	for w.pause(time.Duration(2000+rng.IntN(20000)) * time.Millisecond) {
		l, up := w.leader(), w.up()
		if l == nil || !l.r.View().IsLeader || len(up) < 2 {
			continue
		}
		term := l.r.View().Term
		from, to := up[rng.IntN(len(up))], up[rng.IntN(len(up))]
		if to == l {
			continue
		}
		meta, state, err := from.checkpoint(rng)
		if err != nil || meta == nil || l.r.Log().Last() < meta.Index {
			continue
		}
		w.o.say(to.id, "is sent a crafted checkpoint at .., of term ..", meta.Index, meta.Term)
		w.o.count(func(c *counts) { c.Crafted++ })
		c := &crafter{w: w, from: l, to: to}
		c.net = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Stream: c, MaxRPCsInFlight: 1, Timeout: 5 * time.Second, Logger: hclog.NewNullLogger(),
		})
		req := &raft.InstallSnapshotRequest{
			RPCHeader:       raft.RPCHeader{ProtocolVersion: 3, ID: []byte(l.id), Addr: []byte(l.id)},
			SnapshotVersion: 1, Term: term, LastLogIndex: meta.Index, LastLogTerm: meta.Term, Size: int64(len(state)),
			Configuration: raft.EncodeConfiguration(meta.Configuration), ConfigurationIndex: meta.ConfigurationIndex,
		}
		var resp raft.InstallSnapshotResponse
		_ = c.net.InstallSnapshot(raft.ServerID(to.id), raft.ServerAddress(to.id), req, &resp, bytes.NewReader(state))
		_ = c.net.Close()
		c.end()
	}
}

// checkpoint reads one of a node's, on a goroutine that may end with the node.
func (n *simNode) checkpoint(rng *rand.Rand) (meta *raft.SnapshotMeta, state []byte, err error) {
	pick := rng.IntN(1 << 20)
	done := make(chan struct{})
	go func() {
		defer close(done)
		snaps := n.r.store.Snapshots()
		metas, lerr := snaps.List()
		if err = lerr; err != nil || len(metas) == 0 {
			return
		}
		m, body, oerr := snaps.Open(metas[pick%len(metas)].ID)
		if err = oerr; err != nil {
			return
		}
		state, err = io.ReadAll(body)
		meta = m
	}()
	<-done
	return meta, state, err
}

// crafter is the raft.StreamLayer of an RPC written by hand.
type crafter struct {
	w        *world
	from, to *simNode
	net      *raft.NetworkTransport
	conns    []*simConn
}

func (c *crafter) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (c *crafter) Close() error              { return nil }
func (c *crafter) Addr() net.Addr            { return idAddr(c.from.id) }

func (c *crafter) Dial(raft.ServerAddress, time.Duration) (net.Conn, error) {
	if !c.to.alive.Load() {
		return nil, errSimRefused
	}
	conn := c.w.net.connect(nil, c.to, c.from.id, c.to.id)
	c.conns = append(c.conns, conn)
	c.to.r.Accept(conn.peer, NameOf(c.from.id))
	_, err := conn.Write(preface{cluster: simCluster, from: c.from.id, to: c.to.id}.encode())
	return conn, err
}

func (c *crafter) end() {
	for _, conn := range c.conns {
		conn.reset()
	}
}

// leaders hands leadership on.
func (w *world) leaders(rng *rand.Rand) {
	for w.pause(time.Duration(1000+rng.IntN(30000)) * time.Millisecond) {
		l := w.leader()
		if l == nil {
			continue
		}
		target := ""
		if voters, _ := w.members(); len(voters) > 0 && rng.IntN(2) == 0 {
			target = voters[rng.IntN(len(voters))]
		}
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		w.o.say(l.id, "hands leadership to "+target)
		if rng.IntN(8) == 0 { // a stop as an operator does it
			_ = l.r.Drain(ctx)
			_ = l.r.Transfer(ctx, "")
			l.host.kill()
			w.revive(l.host, time.Duration(rng.IntN(3000))*time.Millisecond)
		} else {
			_ = l.r.Transfer(ctx, target)
		}
		cancel()
	}
}

// retention moves the start of the log.
func (w *world) retention(rng *rand.Rand) {
	for w.pause(time.Duration(500+rng.IntN(6000)) * time.Millisecond) {
		l := w.leader()
		if l == nil {
			continue
		}
		visible := l.r.Log().Visible()
		keep := uint64(1) << rng.IntN(9)
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		if l.r.SetLowest(ctx, max(visible, keep)-keep) == nil {
			w.o.count(func(c *counts) { c.Retained++ })
		}
		cancel()
	}
}

// membership grows the cluster from three to five voters and back, replaces
// wiped nodes, and removes leaders.
func (w *world) membership(rng *rand.Rand) {
	names, life := 3, uint64(1)
	for w.pause(time.Duration(3000+rng.IntN(25000)) * time.Millisecond) {
		w.retire()
		voters, others := w.members()
		l := w.leader()
		if l == nil || len(voters) == 0 {
			continue
		}
		switch {
		case len(others) > 0:
			id := others[0]
			if rng.IntN(4) == 0 {
				w.remove(id)
				continue
			}
			w.promote(id)
		case len(voters) < 3 || len(voters) < 5 && rng.IntN(2) == 0:
			// A name nobody has: a new one, or that of a wiped node.
			name := 1 + rng.IntN(6)
			taken := slices.ContainsFunc(voters, func(id string) bool { return NameOf(id) == fmt.Sprintf("n%d", name) })
			if taken {
				names++
				name = 6 + names
			}
			life++
			h := w.add(simID(name, life))
			h.start()
			n := w.running(h)
			if n == nil || n.r.Bind(simCluster) != nil {
				continue
			}
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			err := l.r.AddNonvoter(ctx, h.id)
			cancel()
			w.o.say(h.id, fmt.Sprintf("joins: %v", err))
			if err == nil && rng.IntN(4) > 0 {
				w.pause(time.Duration(rng.IntN(3000)) * time.Millisecond)
				w.promote(h.id)
			}
		case len(voters) > 3:
			id := voters[rng.IntN(len(voters))]
			if rng.IntN(3) == 0 {
				id = l.id
			}
			w.remove(id)
		}
	}
}

// promote gives a vote to a node once it has caught up.
func (w *world) promote(id string) {
	w.mu.Lock()
	h := w.hosts[id]
	w.mu.Unlock()
	for range 50 {
		l, n := w.leader(), w.running(h)
		if l != nil && n != nil && n.r.View().Ready && n.r.Log().Visible()+20 > l.r.Log().Visible() {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			err := l.r.AddVoter(ctx, id)
			cancel()
			w.o.say(id, fmt.Sprintf("gets a vote: %v", err))
			return
		}
		if !w.pause(200 * time.Millisecond) {
			return
		}
	}
}

// remove takes a node out of the configuration.
func (w *world) remove(id string) {
	l := w.leader()
	if l == nil {
		return
	}
	w.mu.Lock()
	for _, h := range w.hosts {
		if h.id == id && h.node != nil {
			h.node.leaving.Store(true)
		}
	}
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	err := l.r.RemovePeer(ctx, id)
	cancel()
	w.o.count(func(c *counts) { c.Members++ })
	w.o.say(id, fmt.Sprintf("is removed by %s: %v", l.id, err))
}

// retire stops nodes that have not belonged to the cluster for a while. Their
// disks stay, in case they still do.
func (w *world) retire() {
	if w.leader() == nil {
		return
	}
	for _, h := range w.all() {
		if time.Since(h.born) > time.Minute && !w.belongs(h.id) {
			h.kill()
		}
	}
}

// settle ends all trouble and checks that the cluster comes together: it has a
// leader, takes produces, and every member has everything.
func (w *world) settle() {
	w.net.release()
	w.net.mu.Lock()
	w.net.breaks, w.net.delay = 0, time.Millisecond
	w.net.mu.Unlock()
	w.o.say("", "trouble ends")
	late := time.Now().Add(2 * time.Minute)
	var what string
	for ; ; time.Sleep(250 * time.Millisecond) {
		if w.o.failed() {
			return
		}
		for _, h := range w.all() {
			n := w.running(h)
			if n != nil {
				n.disk.full.Store(false)
				n.disk.broken.Store(false)
				n.disk.thaw()
			}
			if n == nil && w.belongs(h.id) {
				h.start()
			}
		}
		if what = w.together(); what == "" {
			break
		}
		if time.Now().After(late) {
			w.o.violate("comes together", "two minutes after the end of all trouble: %s", what)
			return
		}
	}
	w.final()
}

// together says what is still missing.
func (w *world) together() string {
	l := w.leader()
	if l == nil || !l.r.View().IsLeader {
		return "no leader"
	}
	x, err := l.r.Submit(Batch{Count: 1, Records: simFramed(fmt.Sprintf("end/%d", time.Now().UnixNano()))})
	if err != nil {
		return fmt.Sprintf("the leader %s takes nothing: %v", l.id, err)
	}
	if _, err := wait(x, 5*time.Second); err != nil {
		return fmt.Sprintf("the leader %s commits nothing: %v", l.id, err)
	}
	time.Sleep(500 * time.Millisecond)
	want := l.r.Stats()
	voters, others := w.members()
	for _, id := range append(voters, others...) {
		w.mu.Lock()
		n := w.hosts[id].node
		w.mu.Unlock()
		if n == nil {
			return id + " is not up"
		}
		s := n.r.Stats()
		if s.AppliedIndex != want.AppliedIndex || s.Hash != want.Hash || s.Visible != want.Visible || s.Lowest != want.Lowest {
			return fmt.Sprintf("%s has applied %d and shows [%d, %d), its leader %s %d and [%d, %d)",
				id, s.AppliedIndex, s.Lowest, s.Visible, l.id, want.AppliedIndex, want.Lowest, want.Visible)
		}
		if !s.Ready {
			return id + " is not ready"
		}
	}
	return ""
}

// final reads everything of every member.
func (w *world) final() {
	voters, others := w.members()
	for _, id := range append(voters, others...) {
		w.mu.Lock()
		n := w.hosts[id].node
		w.mu.Unlock()
		log := n.r.Log()
		w.o.mu.Lock()
		all := uint64(len(w.o.content))
		w.o.mu.Unlock()
		if v := log.Visible(); v != all {
			w.o.violate("comes together", "%s shows %d records of %d", id, v, all)
		}
		for off := log.Lowest(); off < log.Visible(); {
			batches, err := log.Read(off, 1<<16)
			if err != nil || len(batches) == 0 {
				w.o.violate("committed stays readable", "%s at offset %d of [%d, %d): %v", id, off, log.Lowest(), log.Visible(), err)
				return
			}
			w.o.reads(n, batches, log.Visible())
			last := batches[len(batches)-1]
			off = last.FirstOffset + uint64(last.Count)
		}
	}
}
