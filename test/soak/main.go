// Command soak runs a real cluster for minutes under everything at once: naive
// producers and consumers of every kind, clients that do not read or mean harm,
// nodes that are killed and drained. Nobody who behaves may see an error, nothing
// may be lost, doubled or out of order, and when all have gone the proxy must be
// what it was at the start.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	s := soak{out: os.Stdout, kept: memoryKept}
	flag.StringVar(&s.bin, "bin", "bin", "folder with logd and logproxy")
	flag.StringVar(&s.dir, "dir", "", "where to keep data and logs (default: a temporary folder, removed at the end)")
	flag.DurationVar(&s.lasts, "for", 10*time.Minute, "how long the load lasts")
	flag.DurationVar(&s.heartbeat, "heartbeat", 0, "Raft's heartbeat timeout (default: the program's)")
	flag.DurationVar(&s.hold, "hold", 10*time.Second, "the proxy's hold_timeout: how long it may be without a leader")
	flag.IntVar(&s.rate, "rate", 600, "records produced a second, about")
	flag.Uint64Var(&s.seed, "seed", uint64(time.Now().UnixNano()), "of what is chosen at random")
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), "Usage: soak [flags]\n\nRuns a cluster under mixed load, hostile clients, kills and drains, and counts what that did.\n\n")
		flag.PrintDefaults()
	}
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	limit := s.lasts + 6*time.Minute // to start, to end, to read everything
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the soak took more than %s", limit))
	err := s.run(ctx)
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		if !errors.Is(err, errVerdict) {
			os.Exit(1)
		}
		os.Exit(2)
	}
}
