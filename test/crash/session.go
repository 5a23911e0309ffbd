package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime/debug"

	"github.com/hashicorp/raft"

	"github.com/logd-io/logd/internal/planted"
	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/raftstore"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

// config is what all sessions of one workload share.
type config struct {
	store        bool  // a raftstore, not a log alone
	segmentBytes int64 // small, so that few entries cross segments
	favour       int   // the call that is made more often than others
	bugs         planted.Storage
	lie          func() lie // nil: the disk is honest
}

// session is a log or a store on one filesystem, open or not, and what it
// should be.
type session struct {
	cfg   *config
	mem   *memfs.FS
	disk  *disk
	rng   *rand.Rand
	log   *commitlog.Log
	store *raftstore.Store // nil for a log alone
	fatal error            // that the store reported
	// sick: the crash was during a repair, and a kill leaves what was repaired in
	// the page cache alone. A power loss then brings the damage back, where Open
	// finds it as it did before.
	sick bool

	now     *model
	known   uint64 // commit index that the open log was told of
	term    uint64
	variant byte
	history history
}

func newSession(cfg *config, mem *memfs.FS, rng *rand.Rand) *session {
	return &session{cfg: cfg, mem: mem, rng: rng, disk: newDisk(mem)}
}

// expect notes what a crash from now on may leave.
func (s *session) expect(e expect) {
	e.damaged = e.damaged || s.sick
	s.history = append(s.history, step{s.mem.Ops(), e})
}

// open opens what is there, holds it against e, and goes on from what it found.
func (s *session) open(e expect) (err error) {
	e.damaged = e.damaged || s.sick
	s.expect(e)
	if err := s.start(e.damaged); err != nil {
		return fmt.Errorf("open: %w", err)
	}
	if e.damaged {
		m := e.longer()
		if e.emptied && s.log.Start() == e.before.start {
			m = e.before
		}
		if err := s.mend(m); err != nil {
			return fmt.Errorf("repair: %w", err)
		}
	}
	m, err := s.verify(e)
	if err != nil {
		return fmt.Errorf("opened: %w", err)
	}
	s.now, s.known = m, 0
	s.term = max(s.term, m.term(m.last()))
	s.expect(exactly(e.what+", opened", m))
	return nil
}

// start opens the log, a damaged one too if it may be.
func (s *session) start(damaged bool) (err error) {
	if s.cfg.lie != nil {
		s.disk.lie = s.cfg.lie() // another process, another lie
	}
	fsys := s.disk
	if s.cfg.store {
		s.fatal = nil
		s.store, err = raftstore.Open(raftstore.Options{
			FS: fsys, Dir: "/data", SegmentBytes: s.cfg.segmentBytes, CacheBytes: 600,
			OnFatal: func(err error) { s.fatal = err }, Planted: s.cfg.bugs, AllowDamage: damaged,
		})
		if err != nil {
			return err
		}
		s.log = s.store.Log()
		return nil
	}
	s.log, err = commitlog.Open(commitlog.Options{
		FS: fsys, Dir: "/data/log", SegmentBytes: s.cfg.segmentBytes, CacheBytes: 600, OffsetBatches: 4,
		Planted: s.cfg.bugs, AllowDamage: damaged,
	})
	return err
}

func (s *session) close() error {
	if s.store != nil {
		return s.store.Close()
	}
	return s.log.Close()
}

// verify holds the open log against e and rewinds it as its owner would. It
// returns what the log is.
func (s *session) verify(e expect) (*model, error) {
	m, err := e.match(s.log.Start(), s.log.Last())
	if err != nil {
		return nil, err
	}
	for i := m.start.Index + 1; i <= m.last(); i++ {
		got, err := s.log.Entry(i)
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", i, err)
		}
		if want, _ := m.entry(i); !same(&want, &got) {
			return nil, fmt.Errorf("entry %d is %s, not %s", i, describe(&got), describe(&want))
		}
	}
	for _, i := range []uint64{m.start.Index, m.last() + 1} {
		if _, err := s.log.Entry(i); err != commitlog.ErrNotFound { //nolint:errorlint // it is promised to be bare
			return nil, fmt.Errorf("entry %d outside the log: %s", i, fmt.Sprint(err))
		}
	}
	next := m.synced
	if s.store != nil {
		if m, err = s.verifyStore(e, m); err != nil {
			return nil, err
		}
		next = max(m.newest().next, m.start.Offset)
	}
	if v := s.log.Visible(); v < next || v > m.high {
		return nil, fmt.Errorf("visible is %d: %d was durable and %d ever published", v, next, m.high)
	}
	if err := s.log.Rewind(next); err != nil {
		return nil, fmt.Errorf("rewind to offset %d: %w", next, err)
	}
	m = m.rewound(next)
	return m, s.verifyOffsets(m)
}

// verifyOffsets reads every record batch there is.
func (s *session) verifyOffsets(m *model) error {
	if v, low := s.log.Visible(), s.log.Lowest(); v != m.visible || low != m.start.Offset {
		return fmt.Errorf("offsets are [%d, %d), not [%d, %d)", low, v, m.start.Offset, m.visible)
	}
	for i := 0; i < len(m.batches); {
		if m.batches[i].Index <= m.start.Index {
			i++
			continue
		}
		got, err := s.log.Read(m.batches[i].FirstOffset, 1<<20)
		if err != nil {
			return fmt.Errorf("read offset %d: %w", m.batches[i].FirstOffset, err)
		}
		for _, g := range got {
			if i == len(m.batches) {
				return fmt.Errorf("offset %d is read, and was not published", g.FirstOffset)
			}
			b := m.batches[i]
			want, _ := m.entry(b.Index)
			if g.FirstOffset != b.FirstOffset || g.Count != b.Count || g.Timestamp != b.Timestamp || !bytes.Equal(g.Records, want.Data[b.Pos:][:b.Len]) {
				return fmt.Errorf("offset %d holds other records than were published", b.FirstOffset)
			}
			i++
		}
	}
	return nil
}

// verifyStore holds votes and checkpoints against e.
func (s *session) verifyStore(e expect, m *model) (*model, error) {
	m = m.clone()
	m.keys = map[string]string{}
	for k := range e.after.keys {
		v, err := s.store.Get([]byte(k))
		got := string(v)
		if err != nil {
			got = ""
		}
		if got != e.before.keys[k] && got != e.after.keys[k] {
			return nil, fmt.Errorf("%s is %q, not %q or %q", k, got, e.before.keys[k], e.after.keys[k])
		}
		if err == nil {
			m.keys[k] = got
		}
	}
	view := s.store.Snapshots()
	metas, err := view.List()
	if err != nil {
		return nil, fmt.Errorf("list checkpoints: %w", err)
	}
	newest := check{}
	for i, meta := range metas {
		c, ok := known(meta, e.after, e.before)
		if !ok {
			return nil, fmt.Errorf("checkpoint %s was never made", meta.ID)
		}
		if err := readCheckpoint(view, meta, c); err != nil {
			return nil, err
		}
		if i == 0 {
			newest = c
		}
	}
	if newest != e.before.newest() && newest != e.after.newest() {
		return nil, fmt.Errorf("the newest checkpoint is at entry %d, not %d or %d", newest.index, e.before.newest().index, e.after.newest().index)
	}
	switch {
	case e.emptied && newest != m.newest():
		return nil, fmt.Errorf("the newest checkpoint is at entry %d, but the log starts at %d", newest.index, m.start.Index)
	case newest == e.after.newest():
		m.checks = e.after.checks
	default:
		m.checks = e.before.checks
	}
	view.Flip()
	if metas, err = view.List(); err != nil {
		return nil, fmt.Errorf("list checkpoints: %w", err)
	}
	if start := m.start.Index; start > 0 && (len(metas) != 1 || metas[0].Index != start) {
		return nil, fmt.Errorf("the checkpoint at the start, entry %d, is not there", start)
	}
	return m, nil
}

func known(meta *raft.SnapshotMeta, ms ...*model) (check, bool) {
	for _, m := range ms {
		for _, c := range m.checks {
			if c.index == meta.Index && c.term == meta.Term {
				return c, true
			}
		}
	}
	return check{}, false
}

func readCheckpoint(view *raftstore.Snapshots, meta *raft.SnapshotMeta, c check) error {
	_, r, err := view.Open(meta.ID)
	if err != nil {
		return fmt.Errorf("open checkpoint %s: %w", meta.ID, err)
	}
	state, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		return fmt.Errorf("read checkpoint %s: %w", meta.ID, err)
	}
	if string(state) != c.state {
		return fmt.Errorf("checkpoint %s holds another state", meta.ID)
	}
	return nil
}

func same(a, b *commitlog.Entry) bool {
	return a.Index == b.Index && a.Term == b.Term && a.Type == b.Type && a.AppendedAt == b.AppendedAt && bytes.Equal(a.Data, b.Data)
}

func describe(e *commitlog.Entry) string {
	return fmt.Sprintf("{index %d, term %d, type %d, %d bytes, variant %d}", e.Index, e.Term, e.Type, len(e.Data), e.Data[8])
}

// ended is what a call is reported as that did not return: the store met a
// fatal fault and ended the goroutine.
type ended struct{ cause error }

func (e *ended) Error() string { return fmt.Sprintf("the store ended the goroutine: %v", e.cause) }
func (e *ended) Unwrap() error { return e.cause }

// protect runs f on a goroutine of its own, since a store ends those that meet
// a fatal fault.
func (s *session) protect(f func() error) error {
	result := make(chan error, 1) // sent to once
	go func() {
		var err error = &ended{}
		defer func() {
			if r := recover(); r != nil {
				err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
			}
			var e *ended
			if errors.As(err, &e) {
				e.cause = s.fatal
			}
			result <- err
		}()
		err = f()
	}()
	return <-result
}
