package replica

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// belongs says whether a node is in the newest committed configuration.
func (w *world) belongs(id string) bool {
	voters, others := w.members()
	return slices.Contains(voters, id) || slices.Contains(others, id)
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
		if h.id == id {
			h.leaving.Store(true)
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
