package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/hashicorp/raft"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/raftstore"
)

// call makes one call, which takes the log from what it is to after.
func (s *session) call(what string, after *model, f func() error) error {
	return s.callAs(expect{what: what, before: s.now, after: after}, f)
}

func (s *session) callAs(e expect, f func() error) error {
	s.expect(e)
	if err := f(); err != nil {
		return fmt.Errorf("%s: %w", e.what, err)
	}
	s.now = e.after
	s.expect(exactly(e.what+", done", s.now))
	return nil
}

// some makes one call at random.
func (s *session) some() error {
	type choice struct {
		weight int
		call   func() error
	}
	choices := []choice{
		{20, s.append}, {7, s.truncate}, {6, s.publish}, {2, s.reopen}, {2, s.fullDisk}, {2, s.badDisk}, {2, s.sweep}, {1, s.repair},
	}
	if s.store != nil {
		choices = append(choices, choice{5, s.vote}, choice{5, s.checkpoint}, choice{3, s.retain}, choice{1, s.install})
	} else {
		choices = append(choices, choice{3, s.syncOffsets}, choice{3, s.setStart}, choice{1, s.reset}, choice{4, s.cutCommitted})
	}
	choices[s.cfg.favour%len(choices)].weight += 20
	total := 0
	for _, c := range choices {
		total += c.weight
	}
	n := s.rng.IntN(total)
	for _, c := range choices {
		if n -= c.weight; n < 0 {
			return c.call()
		}
	}
	return nil
}

// fresh makes the next n entries.
func (s *session) fresh(n int) (es []commitlog.Entry) {
	s.term = max(s.term, s.now.term(s.now.last()), 1)
	for i := range uint64(n) {
		s.variant++
		size := s.rng.IntN(260)
		switch s.rng.IntN(16) {
		case 0:
			size = int(s.cfg.segmentBytes) + s.rng.IntN(200) // a segment of its own
		case 1, 2:
			size = 600 + s.rng.IntN(400)
		}
		data := make([]byte, 9+size)
		for k := range data {
			data[k] = byte(s.rng.Uint32())
		}
		index := s.now.last() + 1 + i
		binary.LittleEndian.PutUint64(data, index)
		data[8] = s.variant
		es = append(es, commitlog.Entry{Index: index, Term: s.term, Type: uint8(raft.LogCommand), AppendedAt: int64(1000 + index), Data: data})
	}
	return es
}

func (s *session) append() error {
	es := s.fresh(1 + s.rng.IntN(5))
	return s.call(fmt.Sprintf("append entries %d to %d", es[0].Index, es[len(es)-1].Index), s.now.with(es), func() error { return s.store1(es) })
}

// store1 is one call that stores entries.
func (s *session) store1(es []commitlog.Entry) error {
	if s.store == nil {
		return s.log.Append(es)
	}
	logs := make([]*raft.Log, len(es))
	for i, e := range es {
		logs[i] = &raft.Log{Index: e.Index, Term: e.Term, Type: raft.LogType(e.Type), AppendedAt: time.Unix(0, e.AppendedAt), Data: e.Data}
	}
	return s.store.StoreLogs(logs)
}

// cuttable is the first entry that may be cut.
func (s *session) cuttable() uint64 { return max(s.now.commit, s.now.start.Index) + 1 }

func (s *session) truncate() error {
	low := s.cuttable()
	if s.now.last() < low {
		return s.append()
	}
	from := low + s.rng.Uint64N(s.now.last()-low+1)
	s.term++
	return s.call(fmt.Sprintf("truncate from entry %d of %d", from, s.now.last()), s.now.cut(from), func() error { return s.cut(from) })
}

func (s *session) cut(from uint64) error {
	if s.store != nil {
		return s.store.DeleteRange(from, s.now.last())
	}
	return s.log.TruncateSuffix(from)
}

// cutCommitted asks for what must be refused.
func (s *session) cutCommitted() error {
	if s.known <= s.now.start.Index {
		return s.append()
	}
	from := s.now.start.Index + 1 + s.rng.Uint64N(s.known-s.now.start.Index)
	s.expect(exactly("truncate committed entries", s.now))
	var refused *commitlog.CommittedError
	if err := s.log.TruncateSuffix(from); !errors.As(err, &refused) {
		return fmt.Errorf("truncate from entry %d, committed up to %d: %v", from, s.known, err)
	}
	return nil
}

// publish commits some entries, each of them a batch.
func (s *session) publish() error {
	from := s.now.commit + 1
	if n := len(s.now.batches); n > 0 {
		from = s.now.batches[n-1].Index + 1 // again, what a rewind dropped
	}
	from = max(from, s.now.start.Index+1)
	if s.now.visible == s.now.start.Offset {
		from = s.now.start.Index + 1
	}
	if s.now.last() < from {
		return s.append()
	}
	to := from + s.rng.Uint64N(s.now.last()-from+1)
	after := s.now.clone()
	var fresh []commitlog.Applied
	for i := from; i <= to; i++ {
		e, _ := s.now.entry(i)
		count := uint32(1 + i%3)
		fresh = append(fresh, commitlog.Applied{FirstOffset: after.visible, Count: count, Index: i, Pos: 4, Len: uint32(len(e.Data)) - 4, Timestamp: e.AppendedAt})
		after.visible += uint64(count)
	}
	after.batches = append(after.batches, fresh...)
	after.high = max(after.high, after.visible)
	after.commit = max(after.commit, to)
	err := s.call(fmt.Sprintf("publish entries %d to %d", from, to), after, func() error {
		s.log.SetCommitted(to)
		return s.log.Publish(fresh)
	})
	s.known = max(s.known, to)
	return err
}

func (s *session) syncOffsets() error {
	after := s.now.clone()
	after.synced = after.visible
	return s.call("sync the offset index", after, s.log.SyncOffsets)
}

// startAt is the start behind a published batch.
func startAt(m *model, b commitlog.Applied) commitlog.Start {
	return commitlog.Start{Index: b.Index, Term: m.term(b.Index), Offset: b.FirstOffset + uint64(b.Count)}
}

func (s *session) setStart() error {
	if s.now.synced != s.now.visible {
		if err := s.syncOffsets(); err != nil {
			return err
		}
	}
	var above []commitlog.Applied
	for _, b := range s.now.batches {
		if b.Index > s.now.start.Index {
			above = append(above, b)
		}
	}
	if len(above) == 0 {
		return s.publish()
	}
	start := startAt(s.now, above[s.rng.IntN(len(above))])
	return s.call(fmt.Sprintf("move the start to entry %d", start.Index), s.now.from(start), func() error { return s.log.SetStart(start) })
}

// sweep removes the files that retention left behind.
func (s *session) sweep() error {
	for more := true; more; {
		err := s.call("sweep", s.now, func() (err error) {
			if s.store != nil {
				more = s.store.Sweep()
				return nil
			}
			more, err = s.log.Sweep()
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// elsewhere is a checkpoint of another node's, which this log conflicts with or
// does not reach.
func (s *session) elsewhere() commitlog.Start {
	s.term = max(s.term, s.now.term(s.now.last())) + 1
	low := s.cuttable()
	return commitlog.Start{Index: low + s.rng.Uint64N(s.now.last()-low+1+10), Term: s.term, Offset: s.now.high + 5}
}

func (s *session) reset() error {
	at := s.elsewhere()
	e := expect{what: fmt.Sprintf("reset to entry %d", at.Index), before: s.now, after: emptied(s.now, at), emptied: true}
	err := s.callAs(e, func() error { return s.log.Reset(at) })
	s.known = max(s.known, at.Index)
	return err
}

func (s *session) reopen() error {
	if err := s.close(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	return s.open(exactly("reopen", s.now))
}

// fullDisk makes calls while nothing can be created or allocated. What it
// refuses changes nothing; but what a store cannot put in place of what it cut
// ends it.
func (s *session) fullDisk() error {
	s.disk.full = true
	defer func() { s.disk.full = false }()
	call := s.append
	switch s.rng.IntN(3) {
	case 0:
		call = s.truncate
	case 1:
		if s.store != nil {
			call = s.checkpoint
		}
	}
	for range 4 {
		err := s.protect(call)
		var end *ended
		switch {
		case err == nil:
		case !errors.Is(err, syscall.ENOSPC):
			return err
		case errors.As(err, &end):
			s.disk.full = false
			return s.restart()
		default:
			s.expect(exactly("refused by a full disk", s.now))
		}
	}
	return nil
}

// badDisk makes calls until a write or a sync of one fails, which ends the
// process, and opens what that left in the page cache.
func (s *session) badDisk() error {
	if s.rng.IntN(2) == 0 {
		s.disk.failSync = 1 + s.rng.IntN(4)
	} else {
		s.disk.failWrite = 1 + s.rng.IntN(6)
	}
	defer func() { s.disk.failSync, s.disk.failWrite = 0, 0 }()
	calls := []func() error{s.append, s.append, s.append, s.truncate}
	if s.store != nil {
		calls = append(calls, s.vote, s.checkpoint, s.retain, s.sweep)
	} else {
		calls = append(calls, s.setStart, s.syncOffsets, s.sweep)
	}
	for range 8 {
		err := s.protect(calls[s.rng.IntN(len(calls))])
		switch {
		case err == nil:
		case errors.Is(err, syscall.EIO):
			s.disk.failSync, s.disk.failWrite = 0, 0
			return s.restart()
		default:
			return err
		}
	}
	return nil
}

// restart opens the log again after a call that a fault ended.
func (s *session) restart() error {
	e := s.history[len(s.history)-1].expect
	if err := s.close(); err != nil {
		return fmt.Errorf("close after a failure: %w", err)
	}
	e.what = "reopen after: " + e.what
	return s.open(e)
}

func (s *session) vote() error {
	after := s.now.clone()
	after.keys = map[string]string{}
	for k, v := range s.now.keys {
		after.keys[k] = v
	}
	key := []string{"CurrentTerm", "LastVoteTerm", "LastVoteCand"}[s.rng.IntN(3)]
	s.term++
	val := binary.BigEndian.AppendUint64(nil, s.term)
	after.keys[key] = string(val)
	return s.call("set "+key, after, func() error { return s.store.Set([]byte(key), val) })
}

var configuration = raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: "n1", Address: "a:1"}}}

// checkpoint covers what is published, as the state machine's does.
func (s *session) checkpoint() error {
	n := len(s.now.batches)
	if n == 0 || s.now.batches[n-1].Index <= max(s.now.start.Index, s.now.newest().index) {
		return s.publish()
	}
	if err := s.syncOffsets(); err != nil {
		return err
	}
	at := startAt(s.now, s.now.batches[n-1])
	c := check{index: at.Index, term: at.Term, next: at.Offset, state: fmt.Sprintf("state at %d: %0*d", at.Index, s.rng.IntN(600), 0)}
	after := s.now.clone()
	after.checks = append(after.checks, c)
	return s.call(fmt.Sprintf("checkpoint at entry %d", c.index), after, func() error {
		sink, err := s.store.Snapshots().Create(raft.SnapshotVersionMax, c.index, c.term, configuration, 1, nil)
		if err != nil {
			return err
		}
		sink.(*raftstore.Sink).Cover(c.next, c.next*100)
		if _, err := sink.Write([]byte(c.state)); err != nil {
			return err
		}
		return sink.Close()
	})
}

// retain moves the start to a checkpoint.
func (s *session) retain() error {
	metas, err := s.store.Snapshots().List()
	if err != nil {
		return err
	}
	var above []check
	for _, meta := range metas {
		if c, ok := known(meta, s.now); ok && c.index > s.now.start.Index {
			above = append(above, c)
		}
	}
	if len(above) == 0 {
		return s.checkpoint()
	}
	c := above[s.rng.IntN(len(above))]
	start := commitlog.Start{Index: c.index, Term: c.term, Offset: c.next}
	return s.call(fmt.Sprintf("retain from entry %d on", c.index), s.now.from(start), func() error {
		_, err := s.store.Retain(c.next)
		return err
	})
}

func (s *session) install() error {
	at := s.elsewhere()
	after := emptied(s.now, at)
	after.checks = []check{{index: at.Index, term: at.Term, next: at.Offset, state: fmt.Sprintf("installed at %d", at.Index)}}
	e := expect{what: fmt.Sprintf("install a checkpoint at entry %d", at.Index), before: s.now, after: after, emptied: true}
	return s.callAs(e, func() error {
		return s.store.Install(raftstore.Installed{
			Index: at.Index, Term: at.Term, Next: at.Offset, Bytes: at.Offset * 100,
			Config: configuration, ConfigIndex: 1, State: []byte(after.checks[0].state),
		})
	})
}

// use is what a recovered log must be good for: it takes entries, cuts them,
// takes others, and is the same when it is opened again.
func (s *session) use() error {
	if err := s.append(); err != nil {
		return err
	}
	from := s.now.last()
	s.term++
	if err := s.call("truncate the last entry", s.now.cut(from), func() error { return s.cut(from) }); err != nil {
		return err
	}
	if err := s.append(); err != nil {
		return err
	}
	return s.reopen()
}
