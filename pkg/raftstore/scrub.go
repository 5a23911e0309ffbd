package raftstore

import (
	"context"
	"errors"
	"io/fs"
	"path"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/vfs"
)

// scrubRest verifies the checkpoints and the file of Raft's term and vote.
func (s *Store) scrubRest(ctx context.Context, pace func(ctx context.Context, bytes int64) error) error {
	list, _ := s.checks.snapshot()
	for _, h := range list {
		if err := pace(ctx, int64(checkpointHeader)+int64(h.configLen)+int64(h.stateLen)); err != nil {
			return err
		}
		if err := s.scrubCheckpoint(h); err != nil {
			return err
		}
	}
	if err := pace(ctx, stableSize); err != nil {
		return err
	}
	return s.scrubStable()
}

// scrubCheckpoint verifies a checkpoint and its copy, and writes the one again
// from the other.
func (s *Store) scrubCheckpoint(h *checkpoint) error {
	s.enter()
	defer s.leave()
	c := s.checks
	c.change.Lock()
	defer c.change.Unlock()
	list, base := c.snapshot()
	if c.find(h.id()) == nil || len(list) == 0 {
		return nil // dropped meanwhile
	}
	if err := c.mend(h, h.index == base); err != nil {
		if !IsFull(err) {
			s.Fail(err)
		}
		return err
	}
	return nil
}

// mend makes sure that h, and its copy where it has to have one, verify. change
// must be held.
func (c *checkpoints) mend(h *checkpoint, twice bool) error {
	names := []string{h.id() + checkpointSuffix}
	if twice {
		names = append(names, names[0]+copySuffix)
	}
	var whole []byte
	var bad []string
	var why error
	for _, n := range names {
		b, err := vfs.ReadFile(c.fs, path.Join(c.dir, n))
		if err == nil {
			err = h.same(b)
		}
		if err != nil {
			bad, why = append(bad, n), err
			if !errors.Is(err, fs.ErrNotExist) {
				c.logger.Warn("checkpoint is damaged", "file", n, "err", err)
			}
			continue
		}
		whole = b
	}
	switch {
	case len(bad) == 0:
		return nil
	case whole == nil:
		c.spoiled(h, why)
		return nil
	}
	for _, n := range bad {
		if err := vfs.WriteFileAtomic(c.fs, path.Join(c.dir, n), whole); err != nil {
			return err
		}
		c.whole(n)
		c.logger.Info("checkpoint restored from its copy", "file", n)
	}
	return nil
}

// same checks that a file is the checkpoint h, whole.
func (h *checkpoint) same(file []byte) error {
	o, err := decodeHeader(file)
	if err != nil {
		return err
	}
	if o.index != h.index || o.term != h.term || o.bodyCRC != h.bodyCRC {
		return errors.New("it is another checkpoint")
	}
	_, _, err = o.decodeBody(file)
	return err
}

// spoiled takes a checkpoint that does not verify out of the set. Its file goes
// when the next one is made.
func (c *checkpoints) spoiled(h *checkpoint, err error) {
	c.logger.Warn("checkpoint is not used any more", "file", h.name, "err", err)
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]*checkpoint, 0, len(c.list))
	for _, o := range c.list {
		if o.index != h.index {
			list = append(list, o)
		}
	}
	c.list = list
	c.bad = append(c.bad, h.name)
}

// damaged names the files that did not verify.
func (c *checkpoints) damaged() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.bad...)
}

// missing says why the state machine cannot be restored, if so.
func (c *checkpoints) missing(start commitlog.Start) error {
	if start.Index == 0 || c.newest() != nil {
		return nil
	}
	return &CorruptError{Path: c.dir, Reason: "no checkpoint is readable, and the log does not start at its beginning"}
}

// scrubStable verifies the file of Raft's term and vote. What was read at Open
// is known and is written again.
func (s *Store) scrubStable() error {
	s.enter()
	defer s.leave()
	if err := s.stable.scrub(s.logger); err != nil {
		if !IsFull(err) {
			s.Fail(err)
		}
		return err
	}
	return nil
}
