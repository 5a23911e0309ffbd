package main

import (
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/logd-io/logd/pkg/vfs/memfs"
)

// limits say how much of a workload is enumerated.
type limits struct {
	calls int // of a workload
	every int // states at one operation that are enumerated in order
	some  int // states at one operation that are drawn beyond those
	deep  int // one in so many states is recovered on a recording, and crashed again everywhere
	again int // states at one operation of such a recovery
}

// run is one run of the program.
type run struct {
	limits
	seed    uint64
	want    int64 // states
	only    int   // the operation to crash at; -1: each
	cfg     func(*config)
	hash    maphash.Seed
	states  atomic.Int64
	checked atomic.Int64 // states that were opened, the same ones at another call included
	damaged atomic.Int64 // damaged disks
	works   atomic.Int64
	seen    seen
	stopped atomic.Bool
}

// seen is the set of states that were counted: hashes of all names and bytes.
type seen struct {
	parts [64]struct {
		sync.Mutex
		sums map[uint64]struct{}
	}
}

// add returns whether sum is new.
func (s *seen) add(sum uint64) bool {
	p := &s.parts[sum%uint64(len(s.parts))]
	p.Lock()
	defer p.Unlock()
	if p.sums == nil {
		p.sums = map[uint64]struct{}{}
	}
	_, had := p.sums[sum]
	p.sums[sum] = struct{}{}
	return !had
}

func (r *run) done() bool { return r.stopped.Load() || r.states.Load() >= r.want }

// violation is a promise that was not kept.
type violation struct {
	seed, workload uint64
	check          string // that found it
	where          string
	calls          []string
	err            error
}

func (v *violation) Error() string {
	return fmt.Sprintf("workload %d, %s: %v", v.workload, v.where, v.err)
}

// workload makes workload number w and crashes it everywhere.
func (r *run) workload(w uint64) *violation {
	rng := rand.New(rand.NewPCG(r.seed, w))
	cfg := &config{store: w%2 == 1, segmentBytes: []int64{512, 1024, 1024, 2048, 6144}[rng.IntN(5)], favour: rng.IntN(60)}
	if r.cfg != nil {
		r.cfg(cfg)
	}
	s := newSession(cfg, memfs.NewRecording(), rng)
	e := &enumeration{run: r, cfg: cfg, workload: w, rng: rng}
	err := s.protect(func() error {
		if err := s.open(exactly("the first open", &model{})); err != nil {
			return err
		}
		for range r.calls {
			if err := s.some(); err != nil {
				return err
			}
		}
		return s.close()
	})
	if err != nil {
		return e.violation(byCalls, s.history, "while it was made", err)
	}
	if v := e.crash(s, "", false); v != nil {
		return v
	}
	if v := e.damage(s); v != nil {
		return v
	}
	r.works.Add(1)
	return nil
}

// enumeration is the crashes of one workload.
type enumeration struct {
	*run
	cfg      *config
	workload uint64
	rng      *rand.Rand
}

func (e *enumeration) violation(check string, h history, where string, err error) *violation {
	v := &violation{seed: e.seed, workload: e.workload, check: check, where: where, err: err}
	for _, s := range h {
		v.calls = append(v.calls, fmt.Sprintf("%4d %s", s.op, s.what))
	}
	return v
}

// crash crashes s after each of its operations. again: s is itself what a
// crash left.
func (e *enumeration) crash(s *session, where string, again bool) *violation {
	checked := map[[2]uint64]bool{} // by sum and step
	for op := range s.mem.Ops() + 1 {
		if e.only >= 0 && !again && op != e.only {
			continue
		}
		n := s.history.at(op)
		one := func(fs *memfs.FS, how string) *violation {
			sum := fs.Sum(e.hash)
			if checked[[2]uint64{sum, uint64(n)}] {
				return nil
			}
			checked[[2]uint64{sum, uint64(n)}] = true
			if e.seen.add(sum) {
				e.states.Add(1)
			}
			e.checked.Add(1)
			at := fmt.Sprintf("%s%s after operation %d (%s)", where, how, op, s.history[n].what)
			return e.check(fs, s.history[n].expect, s.history, at, again)
		}
		if v := one(s.mem.KillAt(op), "kill"); v != nil {
			return v
		}
		all, some := e.every, e.some
		if again {
			all, some = 0, e.again
		}
		var every memfs.Every
		more := true
		for i := 0; i < all && more; i++ {
			if more = every.Next(); more {
				if v := one(s.mem.CrashWith(op, &every), fmt.Sprintf("power loss %d", i)); v != nil {
					return v
				}
			}
		}
		for i := 0; i < some && more; i++ {
			if v := one(s.mem.CrashWith(op, memfs.Random(e.rng.Uint64())), fmt.Sprintf("power loss at random, %d,", i)); v != nil {
				return v
			}
		}
		if e.done() {
			return nil
		}
	}
	return nil
}

// check opens what a crash left, uses it, and now and then crashes that as well.
func (e *enumeration) check(fs *memfs.FS, want expect, h history, where string, again bool) *violation {
	deep := !again && e.rng.IntN(e.deep) == 0
	if deep {
		fs.Record()
	}
	s := newSession(e.cfg, fs, rand.New(rand.NewPCG(e.rng.Uint64(), 0)))
	s.sick = want.damaged
	err := s.protect(func() error {
		if err := s.open(want); err != nil {
			return err
		}
		if !deep {
			if err := s.use(); err != nil {
				return err
			}
			return s.close()
		}
		for range 1 + e.rng.IntN(3) {
			if err := s.some(); err != nil {
				return err
			}
		}
		return s.close()
	})
	if err != nil {
		return e.violation(byCrash, h, where, err)
	}
	if !deep {
		return nil
	}
	return e.crash(s, where+"; then ", true)
}

func (v *violation) report() string {
	var b strings.Builder
	fmt.Fprintf(&b, "VIOLATION (%s), seed %d, workload %d\n  %s\n  %v\ncalls, by their first operation:\n", v.check, v.seed, v.workload, v.where, v.err)
	for _, c := range v.calls {
		fmt.Fprintf(&b, "  %s\n", c)
	}
	return b.String()
}
