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
follower, and nothing stops for it. When that restarts meanwhile, it has -timeout to
come back. It takes a certificate of role admin and, where there is an acl, the action
consume. It ends with 1, and without a file, when a record in the range cannot be had.`,
		Examples: `backup -o records.logd
backup -from 1000 -to 2000 | zstd >part.zst`,
		Setup: func(fs *flag.FlagSet, env cli.Env) cli.Action {
			connect := cli.ConnectFlags(fs, env, cli.Node)
			file := fs.String("o", "-", "`file` to write, which must not exist; - is stdout. Default: -")
			from := fs.Uint64("from", 0, "first `offset`. Default: the lowest there is")
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
	patience time.Duration // with a node that does not answer
	from, to uint64

	out     *replica.ExportWriter // nil before the first answer
	cluster string
	next    atomic.Uint64 // the offset after the last record written
}

func (b *backup) run(ctx context.Context, env cli.Env, file string) error {
	if err := b.insist(ctx, func() (bool, error) { return b.bounds(ctx) }); err != nil {
		return err
	}
	return cli.MakeFile(env, file, func(w io.Writer) error {
		p := cli.ShowProgress(env, func() string {
			return fmt.Sprintf("backing up: offset %d of [%d, %d)", b.next.Load(), b.from, b.to)
		})
		err := b.copy(ctx, w)
		p.Stop()
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(env.Stderr, "==> Backed up the records [%d, %d) of cluster %s in %d batches.\n", b.from, b.to, b.cluster, b.out.Batches())
		return err
	})
}

// bounds asks where the log begins and, as of now, ends: a node that is asked for what
// nobody can have finds out before it says so.
func (b *backup) bounds(ctx context.Context) (passes bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, b.patience)
	defer cancel()
	_, err = b.node.Fetch(ctx, &nodev1.FetchRequest{Offset: math.MaxUint64, Linearizable: true, WaitMs: uint32(b.patience.Milliseconds())})
	info, _ := apierr.From(err)
	var log apierr.OutOfRange
	if !errors.As(info.Err(), &log) {
		return b.passes(err), fmt.Errorf("where the log ends: %w", err)
	}
	if b.from == 0 {
		b.from = log.Lowest
	}
	if b.to == math.MaxUint64 {
		b.to = max(b.from, log.Next)
	}
	if b.from < log.Lowest || b.from > b.to || b.to > log.Next {
		return false, fmt.Errorf("[%d, %d) was asked for, but the log has [%d, %d)", b.from, b.to, log.Lowest, log.Next)
	}
	b.next.Store(b.from)
	return false, nil
}

// copy writes the records.
func (b *backup) copy(ctx context.Context, w io.Writer) error {
	if err := b.insist(ctx, func() (bool, error) { return b.stream(ctx, w) }); err != nil {
		return err
	}
	return b.out.End()
}

// backupPace is how often it is tried again at most.
const backupPace = 250 * time.Millisecond

// insist does it again while what do says of its failure is that it passes, until nothing
// has come of it for as long as our patience lasts.
func (b *backup) insist(ctx context.Context, do func() (passes bool, err error)) error {
	tick := time.NewTicker(backupPace)
	defer tick.Stop()
	for heard := time.Now(); ; {
		before := b.next.Load()
		passes, err := do()
		if b.next.Load() > before {
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
// election. One that has never answered is not waited for.
func (b *backup) passes(err error) bool {
	switch apierr.ReasonOf(err) {
	case apierr.ReasonNotLeader, apierr.ReasonPositionUnknown, apierr.ReasonBehind, apierr.ReasonDraining, apierr.ReasonOverloaded:
		return true
	}
	return b.out != nil && !apierr.Answered(err)
}

// stream writes what comes, until there is all of it.
func (b *backup) stream(ctx context.Context, w io.Writer) (passes bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(b.patience, func() { cancel(fmt.Errorf("the node has said nothing for %v", b.patience)) })
	defer silence.Stop()
	s, err := b.node.FetchStream(ctx, &nodev1.FetchRequest{
		Offset: b.next.Load(), MinPosition: b.to, WaitMs: uint32(b.patience.Milliseconds()), ForBackup: true,
	})
	if err != nil {
		return b.passes(err), err
	}
	for {
		resp, err := s.Recv()
		switch {
		case ctx.Err() != nil:
			return false, context.Cause(ctx)
		case errors.Is(err, io.EOF):
			return false, io.ErrUnexpectedEOF // it has no end of its own
		case err != nil:
			return b.passes(err), err
		}
		silence.Reset(b.patience)
		if err := b.take(resp, w); err != nil {
			return false, err
		}
		if b.next.Load() >= b.to {
			return false, nil
		}
	}
}

func (b *backup) take(resp *nodev1.FetchResponse, w io.Writer) (err error) {
	switch cluster := resp.GetClusterId(); {
	case cluster == "":
		return errors.New("the node is of a version that gives no backup: ask another, or upgrade it")
	case b.out == nil:
		b.cluster = cluster
		if b.out, err = replica.NewExportWriter(w, replica.ExportHeader{Cluster: cluster, First: b.from, MadeAt: time.Now().UnixNano()}); err != nil {
			return err
		}
	case cluster != b.cluster:
		return fmt.Errorf("the node is of cluster %s now, and was of %s", cluster, b.cluster)
	}
	for _, r := range resp.GetBatches() {
		if b.out.Next() >= b.to {
			break
		}
		e := replica.ExportBatch{FirstOffset: r.GetFirstOffset(), Count: r.GetCount(), Timestamp: r.GetTimestamp(), Records: r.GetRecords()}
		e.Cut(b.to)
		if err := b.out.Batch(&e); err != nil {
			return err
		}
		b.next.Store(b.out.Next())
	}
	return nil
}
