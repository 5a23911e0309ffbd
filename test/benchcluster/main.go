// Command benchcluster measures logd beside other replicated logs: NATS
// JetStream with three replicas that sync always, and etcd. Each is three real
// processes on this machine that keep what they acknowledge over a power loss,
// and all of them stand ready while each has its turn.
//
// It is a module of its own, so that the peers are no dependencies of logd.
// Theirs is the easier part: they and their clients speak plaintext, where
// logd's nodes have mutual TLS, and their clients know who leads and connect
// there, where logd's in front of the proxy are naive.
//
// After each window the records that were acknowledged are counted; one error
// fails the run. Every goal ends in a line "GOAL <name> <figure> <target>
// ok|MISS", and what is aimed at next in one that begins with NEXT.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/logd-io/logd/test/benchkit"
	"github.com/logd-io/logd/test/harness"
)

// heartbeat is longer than by default, so that a machine that is busy does not
// change the leader in the middle. It costs nothing that is measured.
const heartbeat = time.Second

func main() {
	b := bench{Settings: benchkit.Settings{Rounds: 3, Time: 2 * time.Second}}
	flag.StringVar(&b.bin, "bin", "bin", "folder with logd and logproxy")
	flag.StringVar(&b.peers, "peers", "bin/peers", "folder with nats-server and etcd")
	flag.IntVar(&b.conns, "conns", 8, "connections to each contender")
	c := benchkit.Command{
		Name:     "benchcluster",
		About:    "Measures logd, JetStream and etcd, three durable nodes each, all on this machine.",
		Settings: &b.Settings,
		Around:   b.around,
		Figures: []benchkit.Figure{
			{Name: "unary", Run: b.unary},
			{Name: "produce-stream", Run: b.produceStream},
			{Name: "consume-stream", Run: b.consumeStream},
		},
	}
	os.Exit(c.Main())
}

type bench struct {
	benchkit.Settings
	bin, peers string
	conns      int

	contenders []*contender
}

// around starts all clusters, and ends them after the figures.
func (b *bench) around(ctx context.Context, figures func(context.Context) error) (err error) {
	dir, err := os.MkdirTemp("", "logd-benchcluster-")
	if err != nil {
		return err
	}
	var s setup
	defer func() { err = errors.Join(err, s.close(), os.RemoveAll(dir)) }()
	c, proxy, leader, err := harness.Up(ctx, harness.Options{Bin: b.bin, Dir: dir, Heartbeat: heartbeat})
	if c != nil {
		s.closers = append(s.closers, c.Close)
	}
	if err != nil {
		return err
	}
	s.bench, s.dir, s.cluster = b, dir, c
	if b.contenders, err = s.logd(proxy, leader); err != nil {
		return err
	}
	for _, start := range []func(context.Context) (*contender, error){s.jetStream, s.etcd} {
		starting, cancel := context.WithTimeout(ctx, 30*time.Second)
		peer, err := start(starting)
		cancel()
		if err != nil {
			return err
		}
		b.contenders = append(b.contenders, peer)
	}
	return figures(ctx)
}

// setup is what the contenders are started with.
type setup struct {
	*bench
	dir     string
	cluster *harness.Cluster // its network has room for the others
	closers []func() error   // closed in reverse
}

func (s *setup) close() error {
	var errs []error
	for i := len(s.closers) - 1; i >= 0; i-- {
		errs = append(errs, s.closers[i]())
	}
	return errors.Join(errs...)
}

// start starts a peer's process, which is ended with the others.
func (s *setup) start(p *harness.Process) error {
	if err := p.Start(); err != nil {
		return fmt.Errorf("%w; make bench-cluster builds it", err)
	}
	s.closers = append(s.closers, func() error {
		if !p.Running() {
			return fmt.Errorf("%s has ended by itself; the end of its log:\n%s", p.Name, p.Tail(20))
		}
		return p.Kill()
	})
	return nil
}
