// Command bench measures a cluster of real processes on this machine: what the
// proxy costs beside the same work done straight on a node, and how long
// produces stand still when a leader is killed; and, when asked, how fast a
// follower catches up and how much memory a node takes.
//
// Each pair is measured in turn, round after round, and the medians are
// compared, since nothing else is worth much on a machine that is shared. Every
// goal ends in a line "GOAL <name> <figure> <target> ok|MISS".
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/logd-io/logd/test/harness"
)

func main() {
	var b bench
	var only string
	flag.StringVar(&b.bin, "bin", "bin", "folder with logd and logproxy")
	flag.IntVar(&b.rounds, "rounds", 5, "how often each figure is measured")
	flag.DurationVar(&b.window, "window", 4*time.Second, "how long one produce figure is measured")
	flag.IntVar(&b.kills, "kills", 50, "how many leaders are killed")
	flag.IntVar(&b.records, "records", 400_000, "how many records a consumer reads")
	flag.IntVar(&b.conns, "conns", 8, "connections that the producers share")
	flag.StringVar(&only, "only", "produce,consume,failover", "what to measure, of produce, consume, failover, catchup, memory")
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), "Usage: bench [flags]\n\nMeasures three durable nodes and a proxy, all on this machine.\n\n")
		flag.PrintDefaults()
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := b.run(ctx, strings.Split(only, ","))
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type bench struct {
	bin     string
	rounds  int
	window  time.Duration
	kills   int
	records int
	conns   int
}

func (b *bench) run(ctx context.Context, only []string) error {
	fmt.Printf("%s %s/%s, %d CPUs; three nodes, one proxy and the clients share them; medians of %d rounds\n",
		runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), b.rounds)
	for _, what := range only {
		var err error
		switch what {
		case "produce":
			err = b.with(ctx, b.produce)
		case "consume":
			err = b.with(ctx, b.consume)
		case "failover":
			err = b.with(ctx, b.failover)
		case "catchup":
			err = b.with(ctx, b.catchup)
		case "memory":
			err = b.with(ctx, b.memory)
		default:
			err = fmt.Errorf("-only %s: want produce, consume, failover, catchup or memory", what)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// world is a cluster that is up.
type world struct {
	*harness.Cluster
	proxy  *harness.Proxy
	leader *harness.Node
}

// with runs f against a fresh cluster.
func (b *bench) with(ctx context.Context, f func(context.Context, *world) error) (err error) {
	dir, err := os.MkdirTemp("", "logd-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	c, proxy, leader, err := harness.Up(ctx, harness.Options{Bin: b.bin, Dir: dir})
	if c != nil {
		defer func() { err = errors.Join(err, c.Close()) }()
	}
	if err != nil {
		return err
	}
	return f(ctx, &world{Cluster: c, proxy: proxy, leader: leader})
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
	fmt.Printf("GOAL %s %.2f%s %s%.2f%s %s\n", name, figure, unit, sign, target, unit, verdict)
}
