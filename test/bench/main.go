// Command bench measures a cluster of real processes on this machine: how long
// produces stand still when a leader is killed, when all nodes are restarted or
// replaced one after the other, and as the cluster grows and shrinks; and, when asked, how fast a
// follower catches up and how much memory a node takes. What a proxy costs is
// benchproxy's affair.
//
// Every goal ends in a line "GOAL <name> <figure> <target> ok|MISS".
package main

import (
	"context"
	"errors"
	"flag"
	"os"

	"github.com/logd-io/logd/test/benchkit"
	"github.com/logd-io/logd/test/harness"
)

func main() {
	b := bench{Settings: benchkit.Settings{Rounds: 3}}
	flag.StringVar(&b.bin, "bin", "bin", "folder with logd and logproxy")
	flag.IntVar(&b.kills, "kills", 50, "how many leaders are killed")
	flag.IntVar(&b.records, "records", 400_000, "how many records of a size are written before memory is measured")
	c := benchkit.Command{
		Name:     "bench",
		About:    "Measures three durable nodes and a proxy, all on this machine.",
		Settings: &b.Settings,
		Figures: []benchkit.Figure{
			{Name: "failover", Run: b.with(b.failover)},
			{Name: "rolling-restart", Run: b.moves("rolling-restart", rolling)},
			{Name: "replaced", Run: b.moves("replaced", replaced)},
			{Name: "three-five-three", Run: b.moves("three-five-three", grown)},
			{Name: "catchup", Extra: true, Run: b.with(b.catchup)},
			{Name: "memory", Extra: true, Run: b.with(b.memory)},
		},
	}
	os.Exit(c.Main())
}

type bench struct {
	benchkit.Settings
	bin     string
	kills   int
	records int
}

// world is a cluster that is up.
type world struct {
	*harness.Cluster
	proxy  *harness.Proxy
	leader *harness.Node
}

// with makes f run against a fresh cluster.
func (b *bench) with(f func(context.Context, *world) error) func(context.Context) error {
	return func(ctx context.Context) (err error) {
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
}
