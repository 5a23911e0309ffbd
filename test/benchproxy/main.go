// Command benchproxy measures what a proxy between naive clients and a durable
// cluster of three real processes costs: logproxy, and in its place nginx and
// haproxy, which take plaintext on loopback and speak mTLS to a node as it does,
// beside the same clients straight on that node.
//
// The same code with as many connections drives all of them, in turn, on the
// CPUs that they share. After each window the records that were acknowledged are
// counted in the log, and the last ones read; one error fails the run. Every
// goal ends in a line "GOAL <name> <figure> <target> ok|MISS", and what is aimed
// at next in one that begins with NEXT.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/logd-io/logd/test/benchkit"
	"github.com/logd-io/logd/test/harness"
)

// heartbeat is longer than by default, so that a machine that is busy does not
// change the leader in the middle. It costs nothing that is measured.
const heartbeat = time.Second

func main() {
	b := bench{Settings: benchkit.Settings{Rounds: 5, Time: 2 * time.Second}}
	flag.StringVar(&b.bin, "bin", "bin", "folder with logd and logproxy")
	flag.StringVar(&b.peers, "peers", "bin/peers", "folder with nginx and haproxy")
	flag.IntVar(&b.conns, "conns", 8, "connections to each target")
	targets := flag.String("targets", strings.Join(allTargets, ","), "what to measure; direct is always measured")
	c := benchkit.Command{
		Name:     "benchproxy",
		About:    "Measures proxies in front of three durable nodes, all on this machine.",
		Settings: &b.Settings,
		Around: func(ctx context.Context, figures func(context.Context) error) error {
			b.targets = strings.Split(*targets, ",")
			for _, name := range b.targets {
				if !slices.Contains(allTargets, name) {
					return fmt.Errorf("-targets: want some of %s", strings.Join(allTargets, ", "))
				}
			}
			return figures(ctx)
		},
		Figures: []benchkit.Figure{
			{Name: "unary", Run: b.with(b.unary)},
			{Name: "produce-stream", Run: b.with(b.produceStream)},
			{Name: "consume-stream", Run: b.with(b.consumeStream)},
			{Name: "memory", Run: b.with(b.memory)},
		},
	}
	os.Exit(c.Main())
}

type bench struct {
	benchkit.Settings
	bin, peers string
	conns      int
	targets    []string
}

// with makes f run against a fresh cluster.
func (b *bench) with(f func(context.Context, *world) error) func(context.Context) error {
	return func(ctx context.Context) (err error) {
		dir, err := os.MkdirTemp("", "logd-benchproxy-")
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		c, proxy, leader, err := harness.Up(ctx, harness.Options{Bin: b.bin, Dir: dir, Heartbeat: heartbeat})
		if c != nil {
			defer func() { err = errors.Join(err, c.Close()) }()
		}
		if err != nil {
			return err
		}
		w := &world{Cluster: c, proxy: proxy, leader: leader, dir: dir}
		for _, n := range c.Nodes {
			if n != leader {
				w.followers = append(w.followers, n)
			}
		}
		defer func() { err = errors.Join(err, w.close()) }()
		if err := w.onlyMutualTLS(ctx); err != nil {
			return err
		}
		return f(ctx, w)
	}
}
