package main

import (
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	boltdb "github.com/hashicorp/raft-boltdb/v2"
	raftwal "github.com/hashicorp/raft-wal"
	tidwall "github.com/tidwall/wal"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/vfs"
)

// store is a log on a disk, as this benchmark needs it.
type store interface {
	// append stores the records behind those stored before, each as an entry of
	// its own, and returns when they are durable.
	append(records [][]byte) error
	// scan reads every entry in order and returns how many there are.
	scan() (int, error)
	io.Closer
}

// contenders are what is measured, the log itself second: it is compared with
// the first.
var contenders = []struct {
	name string
	open func(dir string) (store, error)
}{
	{"raw file, preallocated", openRaw},
	{"commitlog", openOurs},
	{"hashicorp/raft-wal", openRaftWAL},
	{"tidwall/wal", openTidwall},
	{"raft-boltdb", openBolt},
}

const (
	theRaw  = 0
	theOurs = 1
)

// rawFile is what a log can at best be: one write and one fdatasync a batch into
// a file that has its blocks.
type rawFile struct {
	dir   string
	n     int
	f     vfs.File
	place int64
	buf   []byte
}

const rawBytes = commitlog.DefaultSegmentBytes

func openRaw(dir string) (store, error) { return &rawFile{dir: dir, place: rawBytes}, nil }

func (r *rawFile) append(records [][]byte) error {
	r.buf = r.buf[:0]
	for _, rec := range records {
		r.buf = append(r.buf, rec...)
	}
	if r.place+int64(len(r.buf)) > rawBytes {
		if err := r.Close(); err != nil {
			return err
		}
		r.n++
		f, err := vfs.OS{}.Create(fmt.Sprintf("%s/%d", r.dir, r.n))
		if err != nil {
			return err
		}
		if err := errors.Join(f.Allocate(rawBytes), f.Sync()); err != nil {
			return err
		}
		r.f, r.place = f, 0
	}
	if _, err := r.f.WriteAt(r.buf, r.place); err != nil {
		return err
	}
	r.place += int64(len(r.buf))
	return r.f.Sync()
}

func (r *rawFile) scan() (int, error) { return 0, errors.New("a raw file has no entries") }

func (r *rawFile) Close() error {
	if r.f == nil {
		return nil
	}
	return r.f.Close()
}

// ours is the commit log.
type ours struct {
	log     *commitlog.Log
	entries []commitlog.Entry
	next    uint64
}

func openOurs(dir string) (store, error) {
	l, err := commitlog.Open(commitlog.Options{FS: vfs.OS{}, Dir: dir})
	return &ours{log: l, next: 1}, err
}

func (o *ours) append(records [][]byte) error {
	o.entries = o.entries[:0]
	for _, rec := range records {
		o.entries = append(o.entries, commitlog.Entry{Index: o.next, Term: 1, Data: rec})
		o.next++
	}
	return o.log.Append(o.entries)
}

func (o *ours) scan() (int, error) {
	first, last := o.log.First(), o.log.Last()
	for i := first; i <= last; i++ {
		if _, err := o.log.Entry(i); err != nil {
			return 0, err
		}
	}
	return int(last - first + 1), nil
}

func (o *ours) Close() error { return o.log.Close() }

// raftLog is a raft.LogStore.
type raftLog struct {
	raft.LogStore
	io.Closer
	logs []*raft.Log
	next uint64
}

func openRaftWAL(dir string) (store, error) {
	w, err := raftwal.Open(dir, raftwal.WithLogger(hclog.NewNullLogger()))
	return &raftLog{LogStore: w, Closer: w, next: 1}, err
}

func openBolt(dir string) (store, error) {
	// It warns of its own size with the standard logger.
	log.SetOutput(io.Discard)
	s, err := boltdb.New(boltdb.Options{Path: filepath.Join(dir, "bolt"), MsgpackUseNewTimeFormat: true})
	return &raftLog{LogStore: s, Closer: s, next: 1}, err
}

func (r *raftLog) append(records [][]byte) error {
	r.logs = r.logs[:0]
	for _, rec := range records {
		r.logs = append(r.logs, &raft.Log{Index: r.next, Term: 1, Data: rec})
		r.next++
	}
	return r.StoreLogs(r.logs)
}

func (r *raftLog) scan() (int, error) {
	first, err := r.FirstIndex()
	if err != nil {
		return 0, err
	}
	var out raft.Log
	for i := first; i < r.next; i++ {
		if err := r.GetLog(i, &out); err != nil {
			return 0, err
		}
	}
	return int(r.next - first), nil
}

// tidwallLog is tidwall/wal, with its sync on.
type tidwallLog struct {
	log   *tidwall.Log
	batch tidwall.Batch
	next  uint64
}

func openTidwall(dir string) (store, error) {
	l, err := tidwall.Open(filepath.Join(dir, "wal"), &tidwall.Options{SegmentSize: rawBytes, NoCopy: true, SegmentCacheSize: 2})
	return &tidwallLog{log: l, next: 1}, err
}

func (t *tidwallLog) append(records [][]byte) error {
	t.batch.Clear()
	for _, rec := range records {
		t.batch.Write(t.next, rec)
		t.next++
	}
	return t.log.WriteBatch(&t.batch)
}

func (t *tidwallLog) scan() (int, error) {
	for i := uint64(1); i < t.next; i++ {
		if _, err := t.log.Read(i); err != nil {
			return 0, err
		}
	}
	return int(t.next - 1), nil
}

func (t *tidwallLog) Close() error { return t.log.Close() }

// fresh opens contender i in a folder of its own below dir.
func fresh(dir string, i int) (store, error) {
	dir = filepath.Join(dir, fmt.Sprint(i))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s, err := contenders[i].open(dir)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", contenders[i].name, err)
	}
	return s, nil
}
