package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"

	"github.com/logd-io/logd/pkg/vfs"
	"github.com/logd-io/logd/test/benchkit"
)

const (
	manyInFlight    = 16
	amplifiedBytes  = 1 << 30
	amplifiedTarget = 1.15
)

// countFS counts the bytes that are written to its files.
type countFS struct {
	vfs.OS
	written atomic.Int64
}

type countFile struct {
	vfs.File
	fs *countFS
}

func (f *countFS) count(file vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return countFile{file, f}, nil
}

func (f *countFS) Create(name string) (vfs.File, error) { return f.count(f.OS.Create(name)) }
func (f *countFS) OpenReadWrite(name string) (vfs.File, error) {
	return f.count(f.OS.OpenReadWrite(name))
}

func (f countFile) WriteAt(b []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(b, off)
	f.fs.written.Add(int64(n))
	return n, err
}

// amplification measures what a node writes to its data directory, frames,
// offset index, checkpoints and all, for each byte of its records.
func (b *bench) amplification(ctx context.Context) error {
	fmt.Printf("\nbytes written to the data directory ÷ bytes of records\n")
	for _, c := range []struct{ n, size int }{{1, 1024}, {16, 1024}, {64, 1024}, {64, 100}} {
		ratio, err := b.amplify(ctx, c.n, c.size)
		if err != nil {
			return err
		}
		fmt.Printf("  %2d records of %4d B a batch %26.3f\n", c.n, c.size, ratio)
		if c.n == 64 && c.size == recordBytes {
			benchkit.Goal.AtMost("write-amplification-1KiBx64", ratio, amplifiedTarget, "")
		}
	}
	return nil
}

func (b *bench) amplify(ctx context.Context, n, size int) (ratio float64, err error) {
	dir, remove, err := b.temp()
	if err != nil {
		return 0, err
	}
	defer remove()
	fsys := &countFS{}
	s, err := openSolo(fsys, dir)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.lead(ctx); err != nil {
		return 0, err
	}
	total := int64(amplifiedBytes)
	if n*size < 32<<10 {
		total /= 8 // small batches take their time
	}
	before := fsys.written.Load()
	if err := s.produce(ctx, batch(n, size), manyInFlight, total); err != nil {
		return 0, err
	}
	return float64(fsys.written.Load()-before) / float64(total), nil
}

const (
	fewRecords, manyRecords = 64, 512
	allocationBatches       = 5000
	allocationTarget        = 0.01 // by far less than one a record
)

// allocations measures how many allocations a record costs beyond those of its
// batch: what batches of many records cost more than batches of few.
func (b *bench) allocations(ctx context.Context) error {
	dir, remove, err := b.temp()
	if err != nil {
		return err
	}
	defer remove()
	s, err := openSolo(vfs.OS{}, dir)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.lead(ctx); err != nil {
		return err
	}
	const size = 100
	perBatch := func(n int) (float64, error) {
		in := batch(n, size)
		var failed error
		// One at a time, so that each batch is an entry.
		mallocs := counted(func() { failed = s.produce(ctx, in, 1, allocationBatches*int64(len(in.Records))) })
		return float64(mallocs) / allocationBatches, failed
	}
	few, err := perBatch(fewRecords)
	if err != nil {
		return err
	}
	many, err := perBatch(manyRecords)
	if err != nil {
		return err
	}
	fmt.Printf("\nallocations a batch: %.1f of %d records, %.1f of %d\n", few, fewRecords, many, manyRecords)
	benchkit.Goal.AtMost("append-allocations/record", (many-few)/(manyRecords-fewRecords), allocationTarget, "")

	var n int
	mallocs := counted(func() { n, err = fetchAll(s.Log()) })
	if err != nil {
		return err
	}
	benchkit.Goal.AtMost("fetch-allocations/record", float64(mallocs)/float64(n), allocationTarget, "")
	return nil
}

// counted returns how many allocations the process made while f ran.
func counted(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.Mallocs - before.Mallocs
}
