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
	"os"
	"time"

	"github.com/logd-io/logd/test/benchkit"
)

func main() {
	b := bench{Settings: benchkit.Settings{Rounds: 5, Time: 3 * time.Second}}
	flag.StringVar(&b.dir, "dir", "", "folder on the disk to measure; empty: the system's for temporary files")
	flag.Int64Var(&b.big, "big", 10<<30, "bytes of the large log of the open figure; less when the disk has no room for it")
	c := benchkit.Command{
		Name:     "benchlog",
		About:    "Measures the local log beside its peers, on one disk, in turns. -time is what\nall stores of one append figure have together in a round.",
		Settings: &b.Settings,
		Around:   b.around,
		Figures: []benchkit.Figure{
			{Name: "append", Run: b.append},
			{Name: "read", Run: b.read},
			{Name: "cold", Run: b.cold},
			{Name: "amplification", Run: b.amplification},
			{Name: "allocations", Run: b.allocations},
			{Name: "open", Run: b.open},
		},
	}
	os.Exit(c.Main())
}

type bench struct {
	benchkit.Settings
	dir string
	big int64
}

// around makes the folder that all figures use.
func (b *bench) around(ctx context.Context, figures func(context.Context) error) (err error) {
	dir, err := os.MkdirTemp(b.dir, "logd-benchlog-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b.dir = dir
	return figures(ctx)
}

// temp makes a folder for one figure; the caller removes it, so that the next
// one has the room.
func (b *bench) temp() (string, func(), error) {
	dir, err := os.MkdirTemp(b.dir, "")
	return dir, func() { _ = os.RemoveAll(dir) }, err // what is left goes with the whole folder
}

func median(v []float64) float64 {
	return benchkit.Median(v, func(f float64) float64 { return f })
}
