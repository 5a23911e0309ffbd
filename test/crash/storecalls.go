package main

import (
	"encoding/binary"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/raftstore"
)

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
