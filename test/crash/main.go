// Command crash makes every state that a crash could leave of a commit log or
// a raft store, as far as time allows, and holds each against a naive model.
//
// Workloads are made at random, by seed, of appends, truncations, rolls,
// retention, resets and installed checkpoints, checkpoints, votes, publishing
// and rewinding of the offset index, full and failing disks, and reopening; odd
// ones are whole stores, even ones logs alone. Each is crashed after every
// operation of the filesystem: killed, and losing power in every way that
// memfs knows while those are few, in drawn ways beyond. What is left must
// open, hold what was acknowledged and nothing else, be the same when opened
// again, and be good for more. One in a few is crashed again, after every
// operation of its recovery and of what was done after.
//
// A state is counted once, whichever operation led to it: it is all names and
// all bytes of a filesystem, synced and not, by a hash of 64 bits.
package main

import (
	"context"
	"flag"
	"fmt"
	"hash/maphash"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

func main() { os.Exit(program(os.Args[1:], os.Stdout, os.Stderr)) }

type options struct {
	seed, first uint64
	workloads   int64
	states      int64
	limit       time.Duration
	procs       int
	op          int
	plant       string
	brief       bool
}

func program(args []string, stdout, stderr io.Writer) int {
	var o options
	flags := flag.NewFlagSet("crash", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano())%1e6, "seed of all workloads")
	flags.Uint64Var(&o.first, "first", 0, "number of the first workload")
	flags.Int64Var(&o.workloads, "workloads", 0, "stop after so many workloads (0: no limit)")
	flags.Int64Var(&o.states, "states", 2_000_000, "stop after so many states")
	flags.DurationVar(&o.limit, "for", 0, "stop after so long (0: no limit)")
	flags.IntVar(&o.procs, "procs", runtime.NumCPU(), "workloads at once")
	flags.IntVar(&o.op, "op", -1, "crash after this operation only")
	flags.StringVar(&o.plant, "plant", "", "plant a bug, by name; \"list\" lists them")
	flags.BoolVar(&o.brief, "brief", false, "crash each workload in fewer ways")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if o.plant == "list" {
		for _, b := range bugs() {
			fmt.Fprintf(stdout, "%-28s %s\n", b.name, b.what)
		}
		return 0
	}
	how := usual
	if o.brief {
		how = brief
	}
	r := &run{limits: how, seed: o.seed, want: o.states, only: o.op, hash: maphash.MakeSeed()}
	if o.plant != "" {
		b, ok := find(o.plant)
		if !ok {
			fmt.Fprintf(stderr, "no bug is called %q\n", o.plant)
			return 2
		}
		r.cfg = b.plant
	}
	ctx := context.Background()
	if o.limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.limit)
		defer cancel()
	}
	debug.SetGCPercent(400) // a state is garbage as soon as it was checked
	fmt.Fprintf(stderr, "seed %d, %d at once\n", o.seed, o.procs)
	v := r.all(ctx, o, stderr)
	if v != nil {
		fmt.Fprint(stderr, v.report())
		more := ""
		if o.brief {
			more += " -brief"
		}
		if o.plant != "" {
			more += " -plant '" + o.plant + "'"
		}
		fmt.Fprintf(stderr, "again: go run ./test/crash -seed %d -first %d -workloads 1%s\n", v.seed, v.workload, more)
		fmt.Fprintf(stdout, "%d crash states checked, 1 violation\n", r.states.Load())
		return 1
	}
	fmt.Fprintf(stdout, "%d crash states checked, 0 violations\n", r.states.Load())
	return 0
}

// What is made of a workload.
var (
	usual = limits{calls: 24, every: 24, some: 10, deep: 40, again: 2}
	brief = limits{calls: 24, every: 4, some: 4, deep: 40, again: 1}
)

// all makes workloads until enough is done or one has a violation.
func (r *run) all(ctx context.Context, o options, progress io.Writer) *violation {
	var (
		next  atomic.Uint64
		found atomic.Pointer[violation]
		wg    sync.WaitGroup
	)
	finished := make(chan struct{}) // closed when all workers are done
	for range o.procs {
		wg.Go(func() {
			for !r.done() && ctx.Err() == nil {
				n := next.Add(1) - 1
				if o.workloads > 0 && n >= uint64(o.workloads) {
					return
				}
				if v := r.workload(o.first + n); v != nil {
					found.CompareAndSwap(nil, v)
					r.stopped.Store(true)
				}
			}
		})
	}
	go func() { // ends with the workers
		wg.Wait()
		close(finished)
	}()
	began := time.Now()
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-finished:
			r.progress(progress, began)
			return found.Load()
		case <-ctx.Done():
			r.stopped.Store(true)
			<-finished
			r.progress(progress, began)
			return found.Load()
		case <-tick.C:
			r.progress(progress, began)
		}
	}
}

func (r *run) progress(w io.Writer, began time.Time) {
	took := time.Since(began).Seconds()
	fmt.Fprintf(w, "%6.0f s: %d states (%.0f/s), opened %d, %d workloads, %d damaged disks\n",
		took, r.states.Load(), float64(r.states.Load())/took, r.checked.Load(), r.works.Load(), r.damaged.Load())
}
