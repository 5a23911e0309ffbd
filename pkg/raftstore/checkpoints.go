package raftstore

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"sort"
	"strings"
	"sync"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/vfs"
)

const (
	// keepNewest checkpoints are kept whatever their distance.
	keepNewest = 3
	// keepSteps is into how many parts the kept ones divide the log's bytes.
	keepSteps = 32
)

// checkpoints is the set of checkpoint files. change serialises what writes or
// removes files; mu guards list and is never held over I/O.
type checkpoints struct {
	fs     vfs.FS
	dir    string
	logger hclog.Logger

	change sync.Mutex
	mu     sync.Mutex
	list   []*checkpoint // ascending by index
	base   uint64        // index of the checkpoint the log starts at, 0: none
	bad    []string      // files that did not verify, and are still there
	away   []string      // whole ones under a wrong name, until an Open that has room to rename them
}

// openCheckpoints reads the headers of all checkpoints, and the whole of the
// newest one. Damaged ones are left alone and not used.
func openCheckpoints(fsys vfs.FS, dir string, logger hclog.Logger) (*checkpoints, error) {
	c := &checkpoints{fs: fsys, dir: dir, logger: logger}
	if err := c.rename(); err != nil {
		return nil, err
	}
	names, err := fsys.List(dir)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	byIndex := make(map[uint64]*checkpoint)
	for _, n := range names { // a checkpoint sorts before its copy
		if !isCheckpoint(n) {
			continue
		}
		h, err := c.readHeader(n)
		if err == nil && !h.named(n) {
			err = fmt.Errorf("it is checkpoint %s", h.id()) // and not whole, or there already
		}
		if err != nil {
			logger.Warn("checkpoint ignored", "file", n, "err", err)
			c.bad = append(c.bad, n)
			continue
		}
		if byIndex[h.index] == nil {
			byIndex[h.index] = h
			c.list = append(c.list, h)
		}
	}
	sort.Slice(c.list, func(i, j int) bool { return c.list[i].index < c.list[j].index })
	for len(c.list) > 0 {
		h := c.list[len(c.list)-1]
		_, _, err := c.read(h)
		if err == nil {
			break
		}
		c.spoiled(h, err)
	}
	return c, nil
}

// named says whether a file of that name may be the checkpoint h, or its copy.
func (h *checkpoint) named(name string) bool {
	return strings.TrimSuffix(name, copySuffix) == h.id()+checkpointSuffix
}

// rename gives checkpoints that go by another's name, as after two files were
// swapped, their own, where nothing whole has that. They are read before any is
// written, so that two may have each other's. A crash between the two writes costs
// one of them; the log's start has a copy.
func (c *checkpoints) rename() error {
	names, err := c.fs.List(c.dir)
	if err != nil {
		return fmt.Errorf("list %s: %w", c.dir, err)
	}
	own, from := make(map[string][]byte), make(map[string]string) // by its name
	for _, n := range names {
		if !isCheckpoint(n) {
			continue
		}
		h, err := c.readHeader(n)
		if err != nil || h.named(n) {
			continue
		}
		b, err := vfs.ReadFile(c.fs, path.Join(c.dir, n))
		if err == nil {
			err = h.same(b)
		}
		if err == nil {
			c.logger.Warn("checkpoint goes by a wrong name", "file", n, "is", h.id())
			own[h.id()+checkpointSuffix], from[h.id()+checkpointSuffix] = b, n
		}
	}
	for n, b := range own {
		h, err := decodeHeader(b)
		if err != nil {
			return err
		}
		if there, err := vfs.ReadFile(c.fs, path.Join(c.dir, n)); err == nil && h.same(there) == nil {
			continue
		}
		switch err := vfs.WriteFileAtomic(c.fs, path.Join(c.dir, n), b); {
		case IsFull(err):
			c.away = append(c.away, from[n])
		case err != nil:
			return fmt.Errorf("write checkpoint %s: %w", n, err)
		}
	}
	return nil
}

// whole takes a name off the lists of files that did not verify, or were another
// checkpoint: what is there now is right, or nothing is.
func (c *checkpoints) whole(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	is := func(n string) bool { return n == name }
	c.bad = slices.DeleteFunc(slices.Clone(c.bad), is)
	c.away = slices.DeleteFunc(c.away, is)
}

func (c *checkpoints) readHeader(name string) (*checkpoint, error) {
	f, err := c.fs.Open(path.Join(c.dir, name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, checkpointHeader)
	if n, err := f.ReadAt(b, 0); n < len(b) {
		return nil, fmt.Errorf("read header: %w", err)
	}
	h, err := decodeHeader(b)
	if err == nil {
		h.name = name
	}
	return h, err
}

// read gives a checkpoint's configuration and state, from its copy if need be.
func (c *checkpoints) read(h *checkpoint) (raft.Configuration, []byte, error) {
	names := []string{h.id() + checkpointSuffix, h.id() + checkpointSuffix + copySuffix}
	var errs []error
	for _, n := range names {
		b, err := vfs.ReadFile(c.fs, path.Join(c.dir, n))
		if err == nil {
			var config raft.Configuration
			if config, b, err = h.decodeBody(b); err == nil {
				return config, b, nil
			}
		}
		if !errors.Is(err, fs.ErrNotExist) || n == h.name {
			errs = append(errs, fmt.Errorf("read checkpoint %s: %w", n, err))
		}
	}
	return raft.Configuration{}, nil, errors.Join(errs...)
}

// settle fits the set to the opened log: what lies below its start goes.
func (c *checkpoints) settle(start commitlog.Start, last uint64, damage bool) error {
	newest := c.newest()
	if newest != nil && newest.index > last {
		return &CorruptError{Path: path.Join(c.dir, newest.name),
			Reason: fmt.Sprintf("it is at entry %d, but the log ends at %d", newest.index, last)}
	}
	if start.Index > 0 && newest == nil && !damage {
		return &CorruptError{Path: c.dir,
			Reason: fmt.Sprintf("the log starts after entry %d, and no checkpoint from there on is readable", start.Index)}
	}
	if err := c.dropBelow(start.Index); err != nil {
		return err
	}
	if h := c.at(start.Index); h != nil {
		if err := c.mend(h, true); err != nil && !IsFull(err) {
			return err
		} // retention makes it when there is room
	}
	return nil
}

// at returns the checkpoint at an entry.
func (c *checkpoints) at(index uint64) *checkpoint {
	list, _ := c.snapshot()
	for _, h := range list {
		if h.index == index {
			return h
		}
	}
	return nil
}

// snapshot is the present list; it is never changed afterwards.
func (c *checkpoints) snapshot() (list []*checkpoint, base uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.list, c.base
}

func (c *checkpoints) newest() *checkpoint {
	if list, _ := c.snapshot(); len(list) > 0 {
		return list[len(list)-1]
	}
	return nil
}

// covered is the newest checkpoint that an offset index up to the offset visible
// can be rewound to, nil when there is none.
func (c *checkpoints) covered(visible uint64) *checkpoint {
	list, _ := c.snapshot()
	for i := len(list) - 1; i >= 0; i-- {
		if list[i].next <= visible {
			return list[i]
		}
	}
	return nil
}

func (c *checkpoints) find(id string) *checkpoint {
	list, _ := c.snapshot()
	for _, h := range list {
		if h.id() == id {
			return h
		}
	}
	return nil
}

// put makes a checkpoint durable and part of the set. change must be held.
func (c *checkpoints) put(h *checkpoint, config, state []byte) error {
	h.name = h.id() + checkpointSuffix
	if err := vfs.WriteFileAtomic(c.fs, path.Join(c.dir, h.name), h.encode(config, state)); err != nil {
		return fmt.Errorf("write checkpoint %s: %w", h.name, err)
	}
	c.whole(h.name)
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]*checkpoint, 0, len(c.list)+1)
	for _, o := range c.list {
		if o.index != h.index {
			list = append(list, o)
		}
	}
	list = append(list, h)
	sort.Slice(list, func(i, j int) bool { return list[i].index < list[j].index })
	c.list = list
	return nil
}

// forget removes a checkpoint that was put and is not to be, durably: one that
// empties the log and came back would cost what is acknowledged from now on.
// change must be held.
func (c *checkpoints) forget(h *checkpoint) error {
	c.mu.Lock()
	var list []*checkpoint
	for _, o := range c.list {
		if o != h {
			list = append(list, o)
		}
	}
	c.list = list
	c.mu.Unlock()
	if err := c.fs.Remove(path.Join(c.dir, h.name)); err != nil {
		return fmt.Errorf("remove checkpoint %s: %w", h.name, err)
	}
	if err := c.fs.SyncDir(c.dir); err != nil {
		return fmt.Errorf("sync %s: %w", c.dir, err)
	}
	return nil
}

// double writes the second copy of a checkpoint. change must be held.
func (c *checkpoints) double(h *checkpoint) error {
	name := path.Join(c.dir, h.id()+checkpointSuffix+copySuffix)
	if b, err := vfs.ReadFile(c.fs, name); err == nil && h.same(b) == nil {
		return nil
	}
	b, err := vfs.ReadFile(c.fs, path.Join(c.dir, h.name))
	if err == nil {
		_, _, err = h.decodeBody(b)
	}
	if err != nil {
		return fmt.Errorf("read checkpoint %s: %w", h.name, err)
	}
	if err := vfs.WriteFileAtomic(c.fs, name, b); err != nil {
		return fmt.Errorf("write copy of checkpoint %s: %w", h.name, err)
	}
	return nil
}

// newestBelow is the newest checkpoint above the entry start whose records all lie
// below the offset lowest, and that can be read: the log is about to begin there.
// One that rotted meanwhile is not used any more.
func (c *checkpoints) newestBelow(lowest, start uint64) *checkpoint {
	list, _ := c.snapshot()
	for _, h := range slices.Backward(list) {
		if h.next > lowest || h.index <= start {
			continue
		}
		_, _, err := c.read(h)
		if err == nil {
			return h
		}
		c.spoiled(h, err)
	}
	return nil
}

// dropBelow removes the checkpoints below the log's start, and notes the start.
func (c *checkpoints) dropBelow(index uint64) error {
	return c.keep(index, func(list []*checkpoint) []*checkpoint {
		var kept []*checkpoint
		for _, h := range list {
			if h.index >= index {
				kept = append(kept, h)
			}
		}
		return kept
	})
}

// thin removes checkpoints that are neither among the newest, nor the oldest,
// nor a step of the log's bytes away from the one kept before.
func (c *checkpoints) thin() error {
	_, base := c.snapshot()
	return c.keep(base, func(list []*checkpoint) []*checkpoint {
		if len(list) <= keepNewest+1 {
			return list
		}
		step := (list[len(list)-1].bytes - list[0].bytes) / keepSteps
		kept := list[:1:1]
		for i, h := range list[1:] {
			if i+1 >= len(list)-keepNewest || h.bytes-kept[len(kept)-1].bytes >= max(step, 1) {
				kept = append(kept, h)
			}
		}
		return kept
	})
}

// keep replaces the set by what choose makes of it and removes the other files.
// Their removal need not be durable: Open would do it again.
func (c *checkpoints) keep(base uint64, choose func([]*checkpoint) []*checkpoint) error {
	c.mu.Lock()
	c.list, c.base = choose(c.list), base
	stay := make(map[string]bool, 2*len(c.list))
	for _, n := range c.away {
		stay[n] = true
	}
	for _, h := range c.list {
		stay[h.name] = true
		if h.index == base {
			stay[h.id()+checkpointSuffix], stay[h.id()+checkpointSuffix+copySuffix] = true, true
		}
	}
	c.mu.Unlock()
	names, err := c.fs.List(c.dir)
	if err != nil {
		return fmt.Errorf("list %s: %w", c.dir, err)
	}
	for _, n := range names {
		if isCheckpoint(n) && !stay[n] && !strings.HasSuffix(n, vfs.TempSuffix) {
			if err := c.fs.Remove(path.Join(c.dir, n)); err != nil {
				return fmt.Errorf("remove checkpoint %s: %w", n, err)
			}
			c.whole(n)
		}
	}
	return nil
}

// IsFull tells a full disk, which only delays, from a broken one.
func IsFull(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }
