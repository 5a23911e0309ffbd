package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/logd-io/logd/pkg/replica"
	"github.com/logd-io/logd/pkg/vfs"
	"github.com/logd-io/logd/test/benchkit"
)

const (
	// smallLog ends as far behind a checkpoint, one every 64 MiB, as any large
	// log measured here: what lies between is read, whatever the size of the log.
	smallLog        = checkpointEvery + beyond
	checkpointEvery = replica.CheckpointBytes
	beyond          = 36 << 20
	openTarget      = 2.0 // × the time of the small log
	openSeconds     = 1.0
)

// open measures how long a node takes to open its data directory, from a cold
// cache, with a small log and with a large one.
func (b *bench) open(ctx context.Context) error {
	free, err := vfs.OS{}.Free(b.dir)
	if err != nil {
		return err
	}
	big := min(b.big, int64(free)/2)/checkpointEvery*checkpointEvery + beyond
	var small, large []float64
	for size, took := range map[int64]*[]float64{smallLog: &small, big: &large} {
		if *took, err = b.openTimes(ctx, size); err != nil {
			return err
		}
	}
	fmt.Printf("\nopen, from a cold cache: %.0f MiB %.0f ms, %.1f GiB %.0f ms\n",
		float64(smallLog)/(1<<20), median(small)*1e3, float64(big)/(1<<30), median(large)*1e3)
	benchkit.Goal.AtMost("open-large/small", median(large)/median(small), openTarget, "")
	benchkit.Goal.AtMost("open-large-seconds", median(large), openSeconds, " s")
	return nil
}

func (b *bench) openTimes(ctx context.Context, size int64) ([]float64, error) {
	dir, remove, err := b.temp()
	if err != nil {
		return nil, err
	}
	defer remove()
	fill := func() (err error) {
		s, err := openSolo(vfs.OS{}, dir)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.Close()) }()
		if err := s.lead(ctx); err != nil {
			return err
		}
		return s.produce(ctx, batch(perEntry, recordBytes), manyInFlight, size)
	}
	if err := fill(); err != nil {
		return nil, err
	}
	var took []float64
	for range b.Rounds {
		names, err := filesBelow(dir)
		if err != nil {
			return nil, err
		}
		if err := errors.Join(context.Cause(ctx), forget(names)); err != nil {
			return nil, err
		}
		began := time.Now()
		s, err := openSolo(vfs.OS{}, dir)
		if err != nil {
			return nil, err
		}
		took = append(took, time.Since(began).Seconds())
		if err := s.Close(); err != nil {
			return nil, err
		}
	}
	return took, nil
}

func filesBelow(dir string) (names []string, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			names = append(names, path)
		}
		return err
	})
	return names, err
}
