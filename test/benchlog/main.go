// Command benchlog measures the local log beside its peers: hashicorp/raft-wal,
// tidwall/wal, raft-boltdb, and what a log can at best be, a preallocated file
// that is written and synced.
//
// It is a module of its own, so that the peers are no dependencies of logd.
// Whatever is compared runs in turn, slice by slice, and each round gives a
// ratio; the median of the rounds is the figure. Every goal ends in a line
// "GOAL <name> <figure> <target> ok|MISS".
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	var b bench
	var only string
	flag.StringVar(&b.dir, "dir", "", "folder on the disk to measure; empty: the system's for temporary files")
	flag.IntVar(&b.rounds, "rounds", 5, "how often each figure is measured")
	flag.DurationVar(&b.window, "window", 3*time.Second, "how long the stores of one append figure run, all together, in a round")
	flag.Int64Var(&b.big, "big", 10<<30, "bytes of the large log of the open figure; less when the disk has no room for it")
	flag.StringVar(&only, "only", "append,read,cold,amplification,allocations,open", "what to measure")
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), "Usage: benchlog [flags]\n\nMeasures the local log beside its peers, on one disk, in turns.\n\n")
		flag.PrintDefaults()
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := b.run(ctx, strings.Split(only, ","))
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchlog:", err)
		os.Exit(1)
	}
}

type bench struct {
	dir    string
	rounds int
	window time.Duration
	big    int64
}

func (b *bench) run(ctx context.Context, only []string) (err error) {
	dir, err := os.MkdirTemp(b.dir, "logd-benchlog-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b.dir = dir
	fmt.Printf("%s %s/%s, %d CPUs; medians of %d rounds\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), b.rounds)
	all := map[string]func(context.Context) error{
		"append": b.append, "read": b.read, "cold": b.cold,
		"amplification": b.amplification, "allocations": b.allocations, "open": b.open,
	}
	for _, what := range only {
		f, ok := all[what]
		if !ok {
			return fmt.Errorf("-only %s: want append, read, cold, amplification, allocations or open", what)
		}
		if err := f(ctx); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	return nil
}

// temp makes a folder for one figure; the caller removes it, so that the next
// one has the room.
func (b *bench) temp() (string, func(), error) {
	dir, err := os.MkdirTemp(b.dir, "")
	return dir, func() { _ = os.RemoveAll(dir) }, err // what is left goes with the whole folder
}

// goal prints a goal's line. better is +1 when more is better, -1 when less is.
func goal(name string, figure, target float64, unit string, better int) {
	verdict := "ok"
	if (figure-target)*float64(better) < 0 {
		verdict = "MISS"
	}
	sign := ">="
	if better < 0 {
		sign = "<="
	}
	fmt.Printf("GOAL %s %.3f%s %s%.2f%s %s\n", name, figure, unit, sign, target, unit, verdict)
}

func median(v []float64) float64 {
	v = slices.Clone(v)
	slices.Sort(v)
	return v[len(v)/2]
}
