package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/vfs"
	"github.com/logd-io/logd/test/benchkit"
	"github.com/logd-io/logd/test/harness"
)

const (
	behindBytes   = 1 << 30
	behindRecord  = 4 << 10
	catchupTarget = 0.6 // of the disk's sequential write speed
	memoryTarget  = 300 // MiB
)

// catchup stops a follower, writes 1 GiB, and measures how fast the follower gets
// it once it is back, beside the disk's sequential write speed.
func (b *bench) catchup(ctx context.Context, w *world) error {
	var follower *harness.Node
	for _, n := range w.Nodes {
		if n != w.leader {
			follower = n
		}
	}
	conn, err := harness.Naive(w.proxy.Addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	var ratios []float64
	for range min(b.Rounds, 3) {
		if err := follower.Kill(); err != nil {
			return err
		}
		if err := fill(ctx, conn, behindBytes/behindRecord, behindRecord); err != nil {
			return err
		}
		leader, err := w.Stats(ctx, w.leader)
		if err != nil {
			return err
		}
		disk, err := diskSpeed(filepath.Dir(follower.DataDir))
		if err != nil {
			return err
		}
		if err := follower.Start(); err != nil {
			return err
		}
		var begun time.Time // when it first answered, so that its start does not count
		err = harness.Until(ctx, func() error {
			s, err := w.Stats(ctx, follower)
			if err != nil {
				return err
			}
			if begun.IsZero() {
				begun = time.Now()
			}
			if s.GetVisible() < leader.GetVisible() {
				return errors.New("is behind")
			}
			return nil
		})
		if err != nil {
			return err
		}
		speed := behindBytes / time.Since(begun).Seconds()
		ratios = append(ratios, speed/disk)
		fmt.Printf("  a follower %d MiB behind catches up at %.0f MB/s; the disk writes %.0f MB/s\n",
			behindBytes>>20, speed/1e6, disk/1e6)
	}
	same := func(f float64) float64 { return f }
	benchkit.Goal.AtLeast("catchup/disk", benchkit.Median(ratios, same), catchupTarget, "")
	return nil
}

// fill writes n records on one stream.
func fill(ctx context.Context, conn grpc.ClientConnInterface, n, size int) error {
	if _, err := harness.Produce(ctx, conn, size, func(sent int) bool { return sent < n }); err != nil {
		return fmt.Errorf("fill with records of %d B: %w", size, err)
	}
	return nil
}

// diskSpeed writes a preallocated file, synced every MiB, and tells the bytes a
// second.
func diskSpeed(dir string) (speed float64, err error) {
	const total, step = 512 << 20, 1 << 20
	name := filepath.Join(dir, "disk-speed")
	f, err := vfs.OS{}.Create(name)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(name)) }()
	if err := errors.Join(f.Allocate(total), f.Sync()); err != nil {
		return 0, err
	}
	buf := make([]byte, step)
	begun := time.Now()
	for at := int64(0); at < total; at += step {
		if _, err := f.WriteAt(buf, at); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
	}
	return total / time.Since(begun).Seconds(), nil
}

// memory measures the most memory that a node with the default cache of 64 MiB
// has had resident, after load of every kind.
func (b *bench) memory(ctx context.Context, w *world) error {
	conn, err := harness.Naive(w.proxy.Addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, size := range []int{100, 1 << 10, 64 << 10} {
		n := min(b.records, (1<<30)/size)
		g, gctx := errgroup.WithContext(ctx)
		for range 4 {
			g.Go(func() error { return fill(gctx, conn, n/4, size) })
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
	leader, err := w.Stats(ctx, w.leader)
	if err != nil {
		return err
	}
	for range 3 { // consumers, while the log is longer than the caches
		err := harness.Tail(ctx, conn, 0, func(rec *logv1.Record) bool { return rec.GetOffset()+1 < leader.GetVisible() })
		if err != nil {
			return err
		}
	}
	worst := 0.0
	for _, n := range w.Nodes {
		peak, err := n.PeakMemory()
		if err != nil {
			return err
		}
		mib := float64(peak) / (1 << 20)
		fmt.Printf("  %s has had %.0f MiB resident at most\n", n.Name, mib)
		worst = max(worst, mib)
	}
	benchkit.Goal.AtMost("node-memory-MiB", worst, memoryTarget, "")
	return nil
}
