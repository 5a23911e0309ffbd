package replica

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/logd-io/logd/pkg/commitlog"
)

type place struct{ index, term uint64 }

type fact struct {
	typ      raft.LogType
	crc      uint32
	prevTerm uint64
}

// shadow is what a node's disk has to hold.
type shadow struct {
	known    bool
	start    place
	log      []place // behind start, without a gap; index included for reading
	inflight []place // of a StoreLogs that has not returned
	cutting  uint64  // of a DeleteRange that has not returned; 0: none
	state    raft.RaftState
	applied  uint64 // since Raft started
	stable   map[string]string
	setting  map[string]string // of a Set that has not returned
	votes    map[string]string // term → candidate, once it is stored
}

func (o *oracle) shadow(id string) *shadow {
	s := o.shadows[id]
	if s == nil {
		s = &shadow{stable: map[string]string{}, setting: map[string]string{}, votes: map[string]string{}}
		o.shadows[id] = s
	}
	return s
}

// term is the one that its node is in.
func (s *shadow) term() uint64 {
	term := []byte(s.stable["CurrentTerm"])
	if len(term) == 0 {
		return 0 // it has never been in one
	}
	return binary.BigEndian.Uint64(term)
}

func (s *shadow) last() place {
	if len(s.log) > 0 {
		return s.log[len(s.log)-1]
	}
	return s.start
}

// at gives the place at an index, the start included.
func (s *shadow) at(index uint64) (place, bool) {
	switch {
	case index == s.start.index:
		return s.start, true
	case index < s.start.index || index > s.last().index:
		return place{}, false
	}
	return s.log[index-s.start.index-1], true
}

// stored checks an entry against every other node's: log matching by induction,
// since equal (index, term) means equal content and an equal term before it.
func (o *oracle) stored(id string, l *raft.Log, prevTerm uint64) {
	f := fact{typ: l.Type, crc: crc32.Checksum(l.Data, castagnoli), prevTerm: prevTerm}
	k := place{l.Index, l.Term}
	if old, ok := o.entries[k]; !ok {
		o.entries[k] = f
		if l.Type == raft.LogConfiguration {
			o.configs[k] = fmt.Sprint(raft.DecodeConfiguration(l.Data).Servers)
		}
		o.counts.Entries++
	} else if old != f {
		o.violated("log matching", "%s stored entry %d of term %d as %+v, elsewhere it is %+v", id, l.Index, l.Term, f, old)
	}
}

// storing precedes StoreLogs, storedAll follows it.
func (o *oracle) storing(n *simNode, logs []*raft.Log) {
	o.mu.Lock()
	defer o.mu.Unlock()
	id := n.id
	if !n.alive.Load() {
		return
	}
	s := o.shadow(id)
	prev := s.last()
	s.inflight = s.inflight[:0]
	for _, l := range logs {
		if l.Index != prev.index+1 {
			o.violated("append only", "%s stores entry %d behind %d", id, l.Index, prev.index)
			return
		}
		if s.state == raft.Leader {
			if who, ok := o.leaders[l.Term]; ok && who != id {
				o.violated("election safety", "%s appends in term %d, which %s leads", id, l.Term, who)
			}
		}
		o.stored(id, l, prev.term)
		prev = place{l.Index, l.Term}
		s.inflight = append(s.inflight, prev)
	}
}

func (o *oracle) storedAll(n *simNode) {
	o.mu.Lock()
	defer o.mu.Unlock()
	id := n.id
	if !n.alive.Load() {
		return
	}
	s := o.shadow(id)
	s.log = append(s.log, s.inflight...)
	s.inflight = s.inflight[:0]
}

// cutting precedes DeleteRange, cut follows it.
func (o *oracle) cutting(n *simNode, first uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	id := n.id
	if !n.alive.Load() {
		return
	}
	s := o.shadow(id)
	if s.state == raft.Leader {
		o.violated("leader append only", "%s deletes its entries from %d on and leads", id, first)
	}
	for i := first; i <= s.last().index && i < uint64(len(o.chosen)); i++ {
		if p, ok := s.at(i); ok && o.chosen[i] == p.term {
			o.violated("committed entries stay", "%s deletes entry %d of term %d, which is committed", id, i, p.term)
		}
	}
	s.cutting = first
	o.counts.Cuts++
	o.note(id, "cuts its log from .. of ..", first, s.last().index)
}

func (o *oracle) cut(n *simNode, first uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	id := n.id
	if !n.alive.Load() {
		return
	}
	s := o.shadow(id)
	s.cutting = 0
	if first > s.start.index && first <= s.last().index {
		s.log = s.log[:first-s.start.index-1]
	}
}

// opened compares what a node finds on its disk with what has to be there.
func (o *oracle) opened(id string, log *commitlog.Log, get func(string) string) {
	start, last := log.Start(), log.Last()
	now := []place{{start.Index, start.Term}}
	var logs []*raft.Log
	for i := start.Index + 1; i <= last; i++ {
		e, err := log.Entry(i)
		if err != nil {
			o.violate("durable", "%s cannot read its entry %d: %v", id, i, err)
			return
		}
		logs = append(logs, &raft.Log{Index: i, Term: e.Term, Type: raft.LogType(e.Type), Data: e.Data})
		now = append(now, place{i, e.Term})
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for i, l := range logs {
		o.stored(id, l, now[i].term)
	}
	s := o.shadow(id)
	o.compare(id, s, now)
	s.known, s.start, s.log = true, now[0], append([]place(nil), now[1:]...)
	s.inflight, s.cutting, s.applied = nil, 0, 0
	s.state = raft.Follower
	o.recalled(id, s, get)
	o.counts.Restores++
	o.note(id, "starts over entries .. to .., term ..", start.Index, last, now[len(now)-1].term)
}

// recalled checks the term and the vote found after a start of Raft; mu is held.
func (o *oracle) recalled(id string, s *shadow, get func(string) string) {
	for _, key := range []string{"CurrentTerm", "LastVoteTerm", "LastVoteCand"} {
		v := get(key)
		want, ok := s.stable[key]
		if next, under := s.setting[key]; ok && v != want && (!under || v != next) {
			o.violated("vote and term stay", "%s opens with %s %x, but had stored %x", id, key, v, want)
		}
		s.stable[key] = v
	}
	// A vote that was under way when the node died was given if it is there now, and
	// otherwise nobody has heard of it.
	if vote, under := s.setting["LastVoteCand"]; under && s.stable["LastVoteCand"] == vote {
		s.votes[s.stable["LastVoteTerm"]] = vote
	}
	clear(s.setting)
}

// compare checks the entries found after a start of Raft; mu is held.
func (o *oracle) compare(id string, s *shadow, now []place) {
	start, last := now[0], now[len(now)-1]
	if start.index > 0 && start.index < uint64(len(o.chosen)) && o.chosen[start.index] != 0 && o.chosen[start.index] != start.term {
		o.violated("log matching", "%s starts behind entry %d of term %d, but that of term %d is committed", id, start.index, start.term, o.chosen[start.index])
	}
	if !s.known {
		return
	}
	if start.index < s.start.index {
		o.violated("durable", "%s starts at entry %d, before it was %d", id, start.index, s.start.index)
		return
	}
	if p, ok := s.at(start.index); !ok || p.term != start.term {
		// Not what it held: a checkpoint was installed, in the place of everything.
		o.counts.Installs++
		o.note(id, "was given a checkpoint at .., of term .., over ..", start.index, start.term, s.last().index)
		if last != start {
			o.violated("installed alone", "%s holds entries up to %d behind a checkpoint at %d that contradicts its log", id, last.index, start.index)
		}
		return
	}
	for _, p := range now[1:] {
		if was, ok := s.at(p.index); ok && was != p {
			o.violated("durable", "%s opens with entry %d of term %d, it had stored term %d", id, p.index, p.term, was.term)
			return
		} else if !ok && !holds(s.inflight, p) {
			o.violated("durable", "%s opens with entry %d of term %d, which it never stored", id, p.index, p.term)
			return
		}
	}
	if end := s.last().index; last.index < end && (s.cutting == 0 || last.index < s.cutting-1) {
		o.violated("durable", "%s opens with entries up to %d, it had stored %d durably", id, last.index, end)
	}
}

func holds(list []place, p place) bool {
	for _, x := range list {
		if x == p {
			return true
		}
	}
	return false
}

// setting precedes a Set of the stable store, set follows it.
func (o *oracle) setting(n *simNode, key, val string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	id := n.id
	if !n.alive.Load() {
		return
	}
	s := o.shadow(id)
	s.setting[key] = val
	switch old := s.stable[key]; {
	case key != "LastVoteCand" && val < old:
		o.violated("vote and term stay", "%s: %s goes from %x back to %x", id, key, old, val)
	case key == "LastVoteCand":
		term := s.stable["LastVoteTerm"]
		if was, ok := s.votes[term]; ok && was != val {
			o.violated("one vote a term", "%s votes for %s and %s in term %x", id, was, val, term)
		}
	}
}

func (o *oracle) set(n *simNode, key, val string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	id := n.id
	if !n.alive.Load() {
		return
	}
	s := o.shadow(id)
	delete(s.setting, key)
	s.stable[key] = val
	if key == "LastVoteCand" {
		s.votes[s.stable["LastVoteTerm"]] = val
	}
}

// became follows each change of Raft's state on a node.
func (o *oracle) became(n *simNode, state raft.RaftState, term uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	id := n.id
	if !n.alive.Load() {
		return
	}
	s := o.shadow(id)
	s.state = state
	o.note(id, strings.ToLower(state.String())+" in term", term)
	if state != raft.Leader {
		return
	}
	o.counts.Elections++
	o.leads(id, term)
	// What a later term than this one committed, a leader need not have: votes that took
	// long can make one when the next has long been elected.
	for i := s.start.index + 1; i < uint64(len(o.chosen)); i++ {
		p, ok := s.at(i)
		if c := o.chosen[i]; c != 0 && o.by[i] < term && (!ok || p.term != c) {
			o.violated("leader completeness", "%s leads in term %d without entry %d of term %d, which was committed by term %d", id, term, i, c, o.by[i])
			return
		}
	}
}

// leads notes a claim to lead; mu is held.
func (o *oracle) leads(id string, term uint64) {
	if was, ok := o.leaders[term]; ok && was != id {
		o.violated("election safety", "%s and %s lead in term %d", was, id, term)
	}
	o.leaders[term] = id
}

// sends sees an AppendEntries: nobody but the leader of its term sends one.
func (o *oracle) sends(n *simNode, req *raft.AppendEntriesRequest) {
	o.mu.Lock()
	defer o.mu.Unlock()
	id := n.id
	if !n.alive.Load() {
		return
	}
	o.leads(id, req.Term)
}
