package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/logd-io/logd/pkg/commitlog"
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
		return fmt.Errorf("truncate from entry %d, committed up to %d: %s", from, s.known, fmt.Sprint(err))
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
