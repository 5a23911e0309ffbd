package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"sync/atomic"
	"time"

	"github.com/logd-io/logd/internal/cli"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/replica"
)

func backupCommand() cli.Command {
	return cli.Command{
		Name:     "backup",
		Synopsis: "Back up the records of a running cluster",
		Long: `Writes all records that were acknowledged before it began, with their offsets, keys,
headers and times, to a file that 'logd inspect import' makes a new cluster of and
that says itself whether it is whole. It reads from the node at -address, best a
follower, and nothing stops for it. A node that restarts meanwhile, or has not got so
far, has -timeout to give the next record. It takes a certificate of role admin and, where there is an acl, the action
consume. It ends with 1, and without a file, when a record in the range cannot be had.`,
		Examples: `backup -o records.logd
backup -from 1000 -to 2000 | zstd >part.zst`,
		Setup: func(fs *flag.FlagSet, env cli.Env) cli.Action {
			connect := cli.ConnectFlags(fs, env, cli.Node)
			file := fs.String("o", "-", "`file` to write, which must not exist; - is stdout. Default: -")
			from := fs.Uint64("from", 0, "first `offset`; 0: the lowest there is. Default: 0")
			to := fs.Uint64("to", math.MaxUint64, "`offset` to end before. Default: the end of the log as of now")
			return func(ctx context.Context, _ []string) error {
				c, err := connect.Dial()
				if err != nil {
					return err
				}
				defer c.Close()
				b := &backup{node: nodev1.NewNodeClient(c.Conn()), patience: connect.Timeout, from: *from, to: *to}
				return b.run(ctx, env, *file)
			}
		},
	}
}

// backup is one run of the command.
type backup struct {
	node     nodev1.NodeClient
	patience time.Duration // with a node that has nothing to give
	from, to uint64        // as asked for

	end      uint64 // where the log ended when it was asked
	answered bool
	cluster  string
	out      *replica.ExportWriter // nil before the first answer that has the cluster
	next     atomic.Uint64         // the offset after the last record written
	has      uint64                // where the log of a node that is behind ended
}

func (b *backup) run(ctx context.Context, env cli.Env, file string) error {
	err := cli.MakeFile(env, file, func(w io.Writer) error {
		p := cli.ShowProgress(env, func() string { return fmt.Sprintf("backing up: at offset %d", b.next.Load()) })
		defer p.Stop()
		if err := b.copy(ctx, w); err != nil {
			return err
		}
		return b.out.End()
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(env.Stderr, "==> Backed up the records [%d, %d) of cluster %s in %d batches.\n", b.from, b.end, b.cluster, b.out.Batches())
	return err
}

// backupPace is how often it is tried again at most.
const backupPace = 250 * time.Millisecond

// copy writes the records. It tries again while what goes wrong passes, until nothing has
// come of that for as long as our patience lasts.
func (b *backup) copy(ctx context.Context, w io.Writer) error {
	tick := time.NewTicker(backupPace)
	defer tick.Stop()
	for heard := time.Now(); ; {
		before := b.next.Load() + b.has
		passes, err := b.try(ctx, w)
		if b.next.Load()+b.has > before {
			heard = time.Now()
		}
		if err == nil || !passes || time.Since(heard) > b.patience {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// passes says whether what the node said, or that it said nothing, passes: a restart, an
// election, a reader of what we write that was slow. One that has never answered is not
// waited for.
func (b *backup) passes(err error) bool {
	info, _ := apierr.From(err)
	switch info.Reason {
	case apierr.ReasonBehind:
		if at, ok := info.Uint(apierr.KeyVisible); ok {
			b.has = max(b.has, at)
		}
		return true
	case apierr.ReasonNotLeader, apierr.ReasonPositionUnknown, apierr.ReasonDraining, apierr.ReasonOverloaded:
		return true
	}
	return b.answered && !apierr.Answered(err)
}

// try goes on where it was. As long as it has nothing it asks anew what there is to have.
func (b *backup) try(ctx context.Context, w io.Writer) (passes bool, err error) {
	if b.out == nil {
		if passes, err := b.bounds(ctx); err != nil {
			return passes, err
		}
	}
	return b.stream(ctx, w)
}

// bounds asks where the log begins and, as of now, ends: a node that is asked for what
// nobody can have finds out before it says so.
func (b *backup) bounds(ctx context.Context) (passes bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, b.patience)
	defer cancel()
	_, err = b.node.Fetch(ctx, &nodev1.FetchRequest{Offset: math.MaxUint64, Linearizable: true, WaitMs: b.wait()})
	info, _ := apierr.From(err)
	var log apierr.OutOfRange
	if !errors.As(info.Err(), &log) {
		return b.passes(err), fmt.Errorf("where the log ends: %w", err)
	}
	b.answered = true
	from, end := b.from, min(b.to, log.Next)
	if from == 0 {
		from = log.Lowest
	}
	if from < log.Lowest || from > end || end < b.to && b.to != math.MaxUint64 {
		asked := fmt.Sprintf("[%d, %d)", b.from, b.to)
		if b.to == math.MaxUint64 {
			asked = fmt.Sprintf("all from %d on", b.from)
		}
		return false, fmt.Errorf("%s was asked for, but the log has [%d, %d)", asked, log.Lowest, log.Next)
	}
	b.end = end
	b.next.Store(from)
	return false, nil
}

// wait is what a node may wait, so that it says itself why there is no answer.
func (b *backup) wait() uint32 { return uint32((b.patience / 4 * 3).Milliseconds()) }

// stream writes what comes, until there is all of it.
func (b *backup) stream(ctx context.Context, w io.Writer) (passes bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	from := b.next.Load()
	s, err := b.node.FetchStream(ctx, &nodev1.FetchRequest{Offset: from, MinPosition: from, WaitMs: b.wait(), ForBackup: true})
	if err != nil {
		return b.passes(err), err
	}
	for heard := time.Now(); b.out == nil || b.next.Load() < b.end; {
		silence := time.AfterFunc(b.patience, func() { cancel(fmt.Errorf("the node has said nothing for %v", b.patience)) })
		resp, err := s.Recv()
		silence.Stop() // it does not count what w takes
		switch {
		case ctx.Err() != nil:
			return false, context.Cause(ctx)
		case errors.Is(err, io.EOF):
			return false, io.ErrUnexpectedEOF // it has no end of its own
		case err != nil:
			return b.passes(err) || b.overtaken(err), err
		}
		if len(resp.GetBatches()) == 0 && time.Since(heard) > b.patience {
			return false, fmt.Errorf("the node has the records up to %d only, and has got no more for %v", resp.GetVisible(), b.patience)
		}
		if err := b.take(resp, w); err != nil {
			return false, err
		}
		if len(resp.GetBatches()) > 0 {
			heard = time.Now()
		}
	}
	return false, nil
}

// overtaken says that what was to come first has been deleted since, and that it was not
// asked for by its offset.
func (b *backup) overtaken(err error) bool {
	return b.out == nil && b.from == 0 && apierr.ReasonOf(err) == apierr.ReasonOutOfRange
}

func (b *backup) take(resp *nodev1.FetchResponse, w io.Writer) (err error) {
	switch cluster := resp.GetClusterId(); {
	case cluster == "":
		return errors.New("the node is of a version that gives no backup: ask another, or upgrade it")
	case b.out == nil:
		b.from, b.cluster = b.next.Load(), cluster
		if b.out, err = replica.NewExportWriter(w, replica.ExportHeader{Cluster: cluster, First: b.from, MadeAt: time.Now().UnixNano()}); err != nil {
			return err
		}
	case cluster != b.cluster:
		return fmt.Errorf("the node is of cluster %s now, and was of %s", cluster, b.cluster)
	}
	for _, r := range resp.GetBatches() {
		if b.out.Next() >= b.end {
			break
		}
		e := replica.ExportBatch{FirstOffset: r.GetFirstOffset(), Count: r.GetCount(), Timestamp: r.GetTimestamp(), Records: r.GetRecords()}
		e.Cut(b.end)
		if err := b.out.Batch(&e); err != nil {
			return err
		}
		b.next.Store(b.out.Next())
	}
	return nil
}
