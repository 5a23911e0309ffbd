package replica

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"
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

// ghosts lets old RPCs arrive.
func (w *world) ghosts(rng *rand.Rand) {
	for w.pause(time.Duration(rng.IntN(600)) * time.Millisecond) {
		w.net.ghost(simCluster)
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
