// Command demo shows the main job with real processes: three storage nodes and
// one proxy; naive producers and a naive tail on the proxy; and a leader that is
// killed twice. It ends with one line of figures, and fails when one is wrong.
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"
	"google.golang.org/grpc"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/test/harness"
)

// The opening of "Alice's Adventures in Wonderland" (Lewis Carroll, 1865; public domain).
//
//go:embed alice.txt
var alice string

func main() {
	var d demo
	flag.StringVar(&d.bin, "bin", "bin", "folder with logd and logproxy")
	flag.StringVar(&d.dir, "dir", "", "where to keep data and logs (default: a temporary folder, removed at the end)")
	flag.Uint64Var(&d.records, "records", 100_000, "how many records to write")
	flag.IntVar(&d.producers, "producers", 64, "how many naive producers")
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), "Usage: demo [flags]\n\nKills the leader of a real cluster twice under load and counts what that lost.\n\n")
		flag.PrintDefaults()
	}
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithTimeoutCause(ctx, 3*time.Minute, errors.New("the demo took more than three minutes"))
	err := d.run(ctx)
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

type demo struct {
	bin, dir  string
	records   uint64
	producers int

	start time.Time
	tty   bool      // progress rewrites its line
	shown time.Time // when progress was last shown
}

func (d *demo) run(ctx context.Context) (err error) {
	d.start = time.Now()
	d.tty = term.IsTerminal(int(os.Stdout.Fd()))
	if d.dir == "" {
		if d.dir, err = os.MkdirTemp("", "logd-demo-"); err != nil {
			return err
		}
		defer func() {
			if err != nil {
				d.say("data and logs are kept in %s", d.dir)
				return
			}
			err = os.RemoveAll(d.dir)
		}()
	}

	d.say("starting three nodes and a proxy")
	c, proxy, leader, err := harness.Up(ctx, harness.Options{Bin: d.bin, Dir: d.dir})
	if c != nil {
		defer func() { err = errors.Join(err, c.Close()) }()
	}
	if err != nil {
		return err
	}
	d.say("%s leads; %d naive producers and a naive tail use the proxy at %s", leader.Name, d.producers, proxy.Addr)

	conns := make([]grpc.ClientConnInterface, d.producers)
	for i := range conns {
		conn, err := harness.Naive(proxy.Addr)
		if err != nil {
			return err
		}
		defer conn.Close()
		conns[i] = conn
	}
	tailConn, err := harness.Naive(proxy.Addr)
	if err != nil {
		return err
	}
	defer tailConn.Close()

	load := &harness.Load{Producers: d.producers, Total: d.records, Text: strings.Split(strings.TrimSpace(alice), "\n")}
	tail := startTail(ctx, tailConn)
	defer tail.stop()
	produced := make(chan struct{})
	go func() { // joined below, and by ctx
		defer close(produced)
		load.Run(ctx, conns...)
	}()
	defer func() { load.Stop(); <-produced }()

	// The leader dies at a third and at two thirds of the way.
	if err := d.until(ctx, load, tail, d.records/3); err != nil {
		return err
	}
	first, err := d.kill(ctx, c)
	if err != nil {
		return err
	}
	if err := d.succeeded(ctx, c, first); err != nil {
		return err
	}
	if err := d.revive(ctx, c, first, load, tail); err != nil {
		return err
	}
	if err := d.until(ctx, load, tail, 2*d.records/3); err != nil {
		return err
	}
	second, err := d.kill(ctx, c)
	if err != nil {
		return err
	}
	if err := d.until(ctx, load, tail, d.records); err != nil {
		return err
	}
	<-produced
	if err := d.revive(ctx, c, second, load, tail); err != nil {
		return err
	}
	return d.verdict(ctx, c, load, tail)
}

// kill ends the leader with SIGKILL.
func (d *demo) kill(ctx context.Context, c *harness.Cluster) (*harness.Node, error) {
	leader, err := c.Leader(ctx)
	if err != nil {
		return nil, err
	}
	if err := leader.Kill(); err != nil {
		return nil, err
	}
	d.say("killed the leader, %s, with SIGKILL", leader.Name)
	return leader, nil
}

// succeeded waits until somebody else leads.
func (d *demo) succeeded(ctx context.Context, c *harness.Cluster, dead *harness.Node) error {
	leader, err := c.Leader(ctx)
	if err != nil {
		return fmt.Errorf("after %s died: %w", dead.Name, err)
	}
	d.say("%s leads", leader.Name)
	return nil
}

// revive starts a killed node and waits until it holds what the others hold.
func (d *demo) revive(ctx context.Context, c *harness.Cluster, n *harness.Node, load *harness.Load, tail *tail) error {
	at := load.Acked()
	if err := n.Start(); err != nil {
		return err
	}
	begun := time.Now()
	err := harness.Until(ctx, func() error {
		d.progress(load, tail)
		st, err := c.Stats(ctx, n)
		if err != nil {
			return err
		}
		if !st.GetReady() || st.GetVisible() < at {
			return fmt.Errorf("%s has %d of %d records", n.Name, st.GetVisible(), at)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s did not catch up: %w; the end of its log:\n%s", n.Name, err, n.Tail(30))
	}
	d.say("%s is back and has caught up, in %s", n.Name, time.Since(begun).Round(time.Millisecond))
	return nil
}

// until waits for n acknowledgements or failures, showing how far things are.
func (d *demo) until(ctx context.Context, load *harness.Load, tail *tail, n uint64) error {
	err := harness.Until(ctx, func() error {
		d.progress(load, tail)
		if done := load.Acked() + load.Failed(); done < n {
			return fmt.Errorf("%d of %d records are answered", done, n)
		}
		return nil
	})
	return err
}

// verdict reads every node's whole log and holds it against the acknowledgements.
func (d *demo) verdict(ctx context.Context, c *harness.Cluster, load *harness.Load, tail *tail) error {
	d.say("reading the whole log from each node")
	var bad []error
	var worst harness.Verdict
	var logs [][]*logv1.Record
	acked := load.Offsets()
	leader, err := c.Leader(ctx)
	if err != nil {
		return err
	}
	st, err := c.Stats(ctx, leader)
	if err != nil {
		return err
	}
	for _, n := range c.Nodes {
		recs, err := c.ReadNode(ctx, n, st.GetVisible())
		if err != nil {
			return fmt.Errorf("read %s: %w", n.Name, err)
		}
		v, err := harness.Check(recs, acked)
		if err != nil {
			return fmt.Errorf("read %s: %w", n.Name, err)
		}
		worst = harness.Verdict{
			InLog: v.InLog, Lost: max(worst.Lost, v.Lost), Duplicates: max(worst.Duplicates, v.Duplicates),
		}
		logs = append(logs, recs)
	}
	for i, recs := range logs[1:] {
		if err := harness.Same(logs[0], recs); err != nil {
			bad = append(bad, fmt.Errorf("%s and %s differ: %w", c.Nodes[0].Name, c.Nodes[i+1].Name, err))
		}
	}
	if err := tail.wait(ctx, st.GetVisible()); err != nil {
		bad = append(bad, fmt.Errorf("the naive tail: %w", err))
	}
	if err := load.Err(); err != nil {
		bad = append(bad, fmt.Errorf("%d naive producers saw an error; the first: %w", load.Failed(), err))
	}
	if worst.Lost+worst.Duplicates+tail.gaps.Load() > 0 || load.Acked() != load.Produced() || worst.InLog != load.Produced() {
		bad = append(bad, errors.New("the figures below are not what they must be"))
	}
	d.say("done")
	err = errors.Join(bad...)
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		err = errors.New("failed")
	}
	fmt.Printf("produced %d  acked %d  in log %d  lost %d  duplicates %d  consumer gaps %d  held %d ms\n",
		load.Produced(), load.Acked(), worst.InLog, worst.Lost, worst.Duplicates, tail.gaps.Load(), load.LongestWait().Milliseconds())
	return err
}

func (d *demo) say(format string, args ...any) {
	if d.tty {
		fmt.Print("\r\033[K")
	}
	fmt.Printf("%6.1fs  %s\n", time.Since(d.start).Seconds(), fmt.Sprintf(format, args...))
}

// progress is a line that is rewritten on a terminal, and a line now and then
// elsewhere.
func (d *demo) progress(load *harness.Load, tail *tail) {
	every, end := 100*time.Millisecond, ""
	if !d.tty {
		every, end = 2*time.Second, "\n"
	}
	if time.Since(d.shown) < every {
		return
	}
	d.shown = time.Now()
	if d.tty {
		fmt.Print("\r\033[K")
	}
	fmt.Printf("%6.1fs  acked %d of %d, the tail has read %d%s", time.Since(d.start).Seconds(), load.Acked(), d.records, tail.next.Load(), end)
}
