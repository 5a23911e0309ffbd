package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/vfs"
	"github.com/logd-io/logd/test/benchkit"
)

const (
	readBytes    = 256 << 20 // of records of 1 KiB
	recordBytes  = 1 << 10
	perEntry     = 64 // records in an entry of a log that is read by offset
	fetchBytes   = 1 << 20
	readTarget   = 2e6 // records a second
	coldTarget   = 0.8 // of the file's own speed
	coldLogBytes = 1 << 30
)

// read measures sequential reads of 1 KiB from the page cache: entry by entry
// beside the peers, and by offset in fetches of 1 MiB, as consumers read.
func (b *bench) read(ctx context.Context) error {
	dir, remove, err := b.temp()
	if err != nil {
		return err
	}
	defer remove()
	fmt.Printf("\nsequential read, 1 KiB, from the page cache      records/s\n")
	for i := range contenders {
		if i == theRaw {
			continue
		}
		rate, err := b.scanRate(ctx, dir, i)
		if err != nil {
			return fmt.Errorf("%s: %w", contenders[i].name, err)
		}
		fmt.Printf("  %-42s %11.0f\n", contenders[i].name+", by entry", rate)
	}
	log, err := filled(filepath.Join(dir, "offsets"), readBytes)
	if err != nil {
		return err
	}
	var rates []float64
	for range b.Rounds {
		began := time.Now()
		n, err := fetchAll(log)
		if err != nil {
			return errors.Join(err, log.Close())
		}
		rates = append(rates, float64(n)/time.Since(began).Seconds())
	}
	fmt.Printf("  %-42s %11.0f\n", "commitlog, by offset, 1 MiB a fetch", median(rates))
	benchkit.Goal.AtLeast("fetch-1KiB-Mrec/s", median(rates)/1e6, readTarget/1e6, "")
	return errors.Join(context.Cause(ctx), log.Close())
}

func (b *bench) scanRate(ctx context.Context, dir string, i int) (rate float64, err error) {
	s, err := fresh(dir, i)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	in := records(256, recordBytes)
	for n := 0; n < readBytes && ctx.Err() == nil; n += len(in) * recordBytes {
		if err := s.append(in); err != nil {
			return 0, err
		}
	}
	var rates []float64
	for range b.Rounds {
		began := time.Now()
		n, err := s.scan()
		if err != nil {
			return 0, err
		}
		rates = append(rates, float64(n)/time.Since(began).Seconds())
	}
	return median(rates), context.Cause(ctx)
}

// filled makes a log of entries with perEntry records of 1 KiB, published, with
// a tail cache that holds next to none of it.
func filled(dir string, size int64) (*commitlog.Log, error) {
	log, err := commitlog.Open(commitlog.Options{FS: vfs.OS{}, Dir: dir, CacheBytes: 1 << 20})
	if err != nil {
		return nil, err
	}
	data := records(1, perEntry*recordBytes)[0]
	const call = 16
	for index := uint64(1); int64(index)*int64(len(data)) <= size; index += call {
		var es [call]commitlog.Entry
		var pub [call]commitlog.Applied
		for i := range es {
			at := index + uint64(i)
			es[i] = commitlog.Entry{Index: at, Term: 1, Data: data}
			pub[i] = commitlog.Applied{FirstOffset: (at - 1) * perEntry, Count: perEntry, Index: at, Len: uint32(len(data)), Timestamp: 1}
		}
		if err := errors.Join(log.Append(es[:]), log.Publish(pub[:])); err != nil {
			return nil, errors.Join(err, log.Close())
		}
	}
	return log, log.SyncOffsets()
}

// fetchAll reads a log by offset from its beginning to its end, into the same memory
// again and again, as a node does that sends it off.
func fetchAll(log *commitlog.Log) (n int, err error) {
	buf := make([]byte, 2*fetchBytes)
	room := func(n int) []byte { return buf[:n] }
	for off := log.Lowest(); off < log.Visible(); {
		got, err := log.ReadInto(off, fetchBytes, room)
		if err != nil {
			return 0, err
		}
		for _, g := range got {
			off += uint64(g.Count)
			n += int(g.Count)
		}
	}
	return n, nil
}

// cold measures fetches of 1 MiB from a log that is in no cache beside reads of
// its files, 1 MiB at a time.
func (b *bench) cold(ctx context.Context) error {
	dir, remove, err := b.temp()
	if err != nil {
		return err
	}
	defer remove()
	log, err := filled(dir, coldLogBytes)
	if err != nil {
		return err
	}
	defer log.Close()
	segments, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	if err != nil {
		return err
	}
	var ratios, speeds []float64
	for range b.Rounds {
		if err := errors.Join(context.Cause(ctx), forget(segments)); err != nil {
			return err
		}
		began := time.Now()
		n, err := readFiles(segments)
		if err != nil {
			return err
		}
		file := float64(n) / time.Since(began).Seconds()
		if err := forget(segments); err != nil {
			return err
		}
		began = time.Now()
		fetched, err := fetchAll(log)
		if err != nil {
			return err
		}
		fetch := float64(fetched*recordBytes) / time.Since(began).Seconds()
		ratios, speeds = append(ratios, fetch/file), append(speeds, fetch)
	}
	fmt.Printf("\ncold fetches of 1 MiB: %.0f MB/s\n", median(speeds)/1e6)
	benchkit.Goal.AtLeast("cold-fetch/file", median(ratios), coldTarget, "")
	return nil
}

// readFiles reads files from their beginning to their end.
func readFiles(names []string) (total int64, err error) {
	buf := make([]byte, fetchBytes)
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			return 0, err
		}
		for {
			n, err := f.Read(buf)
			total += int64(n)
			if err != nil || n == 0 {
				break
			}
		}
		if err := f.Close(); err != nil {
			return 0, err
		}
	}
	return total, nil
}
