package replica

import (
	"fmt"
	"time"
)

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
				n.disk.mu.Lock()
				n.disk.slow = h.slow
				n.disk.mu.Unlock()
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
		// A node's lowest offset is the cluster's, or where its own log begins if
		// that is later, as behind a checkpoint that was crafted.
		lowest := n.r.Log().Start().Offset
		if e := l.r.engine.Load(); e != nil {
			lowest = max(lowest, e.fsm.lowest())
		}
		if s.AppliedIndex != want.AppliedIndex || s.Hash != want.Hash || s.Visible != want.Visible || s.Lowest != lowest {
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
