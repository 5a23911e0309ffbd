package replica

import (
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/logd-io/logd/pkg/commitlog"
)

// oracle knows everything that happened in a simulated cluster and compares
// each step with Raft's safety properties and with what logd promises. The names
// of its checks are in the violations, and the tests of planted bugs ask for
// them.
type oracle struct {
	mu    sync.Mutex
	begin time.Time
	trace [400]event // a ring
	seen  int        // events so far
	found *violation // the first one
	stop  chan struct{}

	entries map[place]fact       // every entry that any node stored
	chosen  []uint64             // term of each committed entry, by index; 0 unknown
	leaders map[uint64]string    // by term
	lasts   map[uint64]appliedAt // what applying an entry led to
	applied uint64               // newest entry applied by anybody
	config  raft.Configuration   // newest committed
	configs map[place]string     // servers, of each configuration entry
	shadows map[string]*shadow

	model   *simModel
	content []string // by offset
	births  []uint64 // entry, by offset
	first   map[string]uint64
	unknown map[string]int // anonymous records whose outcome a producer did not learn
	acked   uint64         // offset behind the highest one acknowledged

	counts counts
}

// counts are what a run reports.
type counts struct {
	Entries, Applied, Acks, Repeats, Refused, Reads           int
	Elections, Cuts, Installs, Restores, Crashes, Kills, Ends int
	Members, Ghosts, Crafted, Retained, Faults                int
}

type place struct{ index, term uint64 }

type fact struct {
	typ      raft.LogType
	crc      uint32
	prevTerm uint64
}

type appliedAt struct {
	term   uint64
	crc    uint32
	digest uint32
}

// shadow is what a node's disk has to hold.
type shadow struct {
	known     bool
	start     place
	log       []place // behind start, without a gap; index included for reading
	inflight  []place // of a StoreLogs that has not returned
	cutting   uint64  // of a DeleteRange that has not returned; 0: none
	state     raft.RaftState
	applied   uint64 // since Raft started
	stable    map[string]string
	setting   map[string]string // of a Set that has not returned
	votes     map[string]string // term → candidate
	installed bool
}

type event struct {
	at   time.Duration
	node string
	what string
	args [3]uint64
}

type violation struct {
	check, text string
	at          time.Duration
}

func newOracle(model *simModel) *oracle {
	return &oracle{
		begin: time.Now(), stop: make(chan struct{}), model: model,
		entries: map[place]fact{}, chosen: make([]uint64, 1), leaders: map[uint64]string{}, lasts: map[uint64]appliedAt{},
		configs: map[place]string{}, shadows: map[string]*shadow{}, first: map[string]uint64{}, unknown: map[string]int{},
	}
}

// note adds an event to the trace; mu is held.
func (o *oracle) note(node, what string, args ...uint64) {
	e := event{at: time.Since(o.begin), node: node, what: what}
	copy(e.args[:], args)
	o.trace[o.seen%len(o.trace)] = e
	o.seen++
}

func (o *oracle) say(node, what string, args ...uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.note(node, what, args...)
}

// violated notes the first violation; mu is held.
func (o *oracle) violated(check, format string, args ...any) {
	if o.found != nil {
		return
	}
	o.found = &violation{check: check, text: fmt.Sprintf(format, args...), at: time.Since(o.begin)}
	o.note("", "VIOLATION "+check)
	close(o.stop)
}

func (o *oracle) violate(check, format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.violated(check, format, args...)
}

func (o *oracle) failed() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.found != nil
}

// tail renders the end of the trace.
func (o *oracle) tail(n int) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var b strings.Builder
	for i := max(0, o.seen-min(n, len(o.trace))); i < o.seen; i++ {
		e := o.trace[i%len(o.trace)]
		fmt.Fprintf(&b, "%12.6fs %-14s %s", e.at.Seconds(), e.node, e.what)
		for k := len(e.args); k > 0; k-- {
			if e.args[k-1] != 0 {
				fmt.Fprintf(&b, " %v", e.args[:k])
				break
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func (o *oracle) shadow(id string) *shadow {
	s := o.shadows[id]
	if s == nil {
		s = &shadow{stable: map[string]string{}, setting: map[string]string{}, votes: map[string]string{}}
		o.shadows[id] = s
	}
	return s
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
	s.inflight, s.cutting, s.applied, s.installed = nil, 0, 0, false
	s.state = raft.Follower
	for _, key := range []string{"CurrentTerm", "LastVoteTerm", "LastVoteCand"} {
		v := get(key)
		want, ok := s.stable[key]
		if next, under := s.setting[key]; ok && v != want && (!under || v != next) {
			o.violated("vote and term stay", "%s opens with %s %x, but had stored %x", id, key, v, want)
		}
		s.stable[key] = v
	}
	clear(s.setting)
	o.counts.Restores++
	o.note(id, "starts over entries .. to .., term ..", start.Index, last, now[len(now)-1].term)
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
		s.votes[term] = val
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
	for i := s.start.index + 1; i < uint64(len(o.chosen)); i++ {
		p, ok := s.at(i)
		if c := o.chosen[i]; c != 0 && c < term && (!ok || p.term != c) {
			o.violated("leader completeness", "%s leads in term %d without entry %d of term %d, which is committed", id, term, i, c)
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

// digest is over everything a state machine is.
func digest(m *machine) uint32 { return crc32.Checksum(m.encode(), castagnoli) }

// made sees a machine a node starts with.
func (o *oracle) made(n *simNode, m *machine, visible uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	id := n.id
	if !n.alive.Load() {
		return
	}
	if m.applied == 0 {
		return
	}
	switch at, ok := o.lasts[m.applied]; {
	case !ok:
		o.violated("state machine safety", "%s restores a state at entry %d, which nobody applied", id, m.applied)
	case at.digest != digest(m):
		o.violated("state machine safety", "%s restores another state at entry %d than the others had", id, m.applied)
	case visible != m.next:
		o.violated("visible", "%s shows offsets up to %d with a state that ends at %d", id, visible, m.next)
	}
}

// applies follows an entry of a node's state machine.
func (o *oracle) applies(n *simNode, l *raft.Log, m *machine, outcomes []outcome, pub []commitlog.Applied) {
	o.mu.Lock()
	defer o.mu.Unlock()
	id := n.id
	if !n.alive.Load() {
		return
	}
	o.counts.Applied++
	s := o.shadow(id)
	if l.Index <= s.applied {
		o.violated("applied once", "%s applies entry %d after %d", id, l.Index, s.applied)
		return
	}
	s.applied = l.Index
	p, ok := s.at(l.Index)
	if !ok || p.term != l.Term {
		o.violated("committed is stored", "%s applies entry %d of term %d, and has not stored it", id, l.Index, l.Term)
		return
	}
	for i := uint64(len(o.chosen)); i <= l.Index; i++ {
		p, _ := s.at(i)
		o.chosen = append(o.chosen, p.term)
	}
	if c := o.chosen[l.Index]; c != 0 && c != l.Term {
		o.violated("state machine safety", "%s applies entry %d of term %d, elsewhere it was of term %d", id, l.Index, l.Term, c)
		return
	}
	now := appliedAt{term: l.Term, crc: crc32.Checksum(l.Data, castagnoli), digest: digest(m)}
	if was, ok := o.lasts[l.Index]; ok {
		if was != now {
			o.violated("state machine safety", "%s is another after entry %d than the others: %+v, %+v", id, l.Index, now, was)
		}
		return
	}
	if l.Index < o.applied {
		o.violated("applied once", "%s applies entry %d, which others passed over before %d", id, l.Index, o.applied)
		return
	}
	for i := o.applied + 1; i < l.Index; i++ {
		if f, ok := o.entries[place{i, o.chosen[i]}]; ok && (f.typ == raft.LogCommand || f.typ == raft.LogConfiguration) {
			o.violated("applied once", "%s applies entry %d and passed over %d", id, l.Index, i)
			return
		}
	}
	o.lasts[l.Index], o.applied = now, l.Index
	switch {
	case l.Type == raft.LogConfiguration:
		o.config = raft.DecodeConfiguration(l.Data)
		o.note(id, "applies a configuration of .. servers at ..", uint64(len(o.config.Servers)), l.Index)
	case l.Data[0] == kindData:
		o.records(id, l, outcomes, pub)
	}
	if o.found == nil && m.next != o.model.next {
		o.violated("offsets", "%s ends at offset %d after entry %d, %d was expected", id, m.next, l.Index, o.model.next)
	}
}

// records compares the decisions about an entry with the model's, and takes
// note of the records; mu is held.
func (o *oracle) records(id string, l *raft.Log, outcomes []outcome, pub []commitlog.Applied) {
	i := 0
	err := decodeData(l.Data, func(h *header) {
		want := o.model.decide(l.Index, h)
		if i >= len(outcomes) || outcomes[i] != want {
			o.violated("once", "%s decides %+v about batch %d of entry %d, producer %x, sequence %d; right is %+v",
				id, outcomes, i, l.Index, h.producer[:2], h.firstSeq, want)
		}
		i++
		if want.verdict != accepted {
			o.counts.Refused++
			return
		}
		if len(pub) == 0 || pub[0].FirstOffset != uint64(len(o.content)) || pub[0].Count != h.count || pub[0].Index != l.Index {
			o.violated("offsets", "%s publishes %+v for %d records at offset %d", id, pub, h.count, len(o.content))
			return
		}
		pub = pub[1:]
		for _, msg := range texts(l.Data[h.pos : h.pos+h.len]) {
			o.born(id, h, l.Index, msg)
		}
	})
	if err != nil || len(pub) > 0 {
		o.violated("offsets", "%s: entry %d: %v, and %d batches too many", id, l.Index, err, len(pub))
	}
}

// born notes a record at the next offset; mu is held. It may be there twice
// only if its producer or key was forgotten between, or nobody could know.
func (o *oracle) born(id string, h *header, index uint64, msg string) {
	if off, ok := o.first[msg]; ok {
		since := o.births[off]
		forgotten := o.model.gone[h.producer] > since || h.keyed() && o.model.lost[h.key] > since
		if !forgotten && o.unknown[msg] == 0 {
			o.violated("once", "%s appends %.20q at offset %d, entry %d, it is at %d already, entry %d; producer %x forgotten at %d, key %x at %d", id, msg, len(o.content), index, off, since,
				h.producer[8:], o.model.gone[h.producer], h.key, o.model.lost[h.key])
		}
		if o.unknown[msg] > 0 {
			o.unknown[msg]--
		}
	}
	o.first[msg] = uint64(len(o.content))
	o.content = append(o.content, msg)
	o.births = append(o.births, index)
}

// acks checks what a producer was told. since is what sent gave when the batch
// was sent first.
func (o *oracle) acks(n *simNode, res Result, msgs []string, since uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	id := n.id
	if !n.alive.Load() {
		return
	}
	o.counts.Acks++
	if res.Duplicate {
		o.counts.Repeats++
	} else if res.FirstOffset < since {
		o.violated("real time", "%s gives offset %d to a batch sent after %d was acknowledged", id, res.FirstOffset, since)
	}
	if int(res.Count) != len(msgs) {
		o.violated("acknowledged", "%s acknowledges %d records of %d", id, res.Count, len(msgs))
	}
	for i, msg := range msgs {
		off := res.FirstOffset + uint64(i)
		switch {
		case off >= uint64(len(o.content)):
			o.violated("acknowledged", "%s acknowledges %q at offset %d, and no node has applied it", id, msg, off)
		case o.content[off] != msg:
			o.violated("acknowledged", "%s acknowledges %q at offset %d, where %q is", id, msg, off, o.content[off])
		}
		o.acked = max(o.acked, off+1)
	}
}

// sent gives the offset that a batch sent from now on cannot be below.
func (o *oracle) sent() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.acked
}

// unsure notes that a producer without sequences did not learn an outcome.
func (o *oracle) unsure(msg string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.unknown[msg]++
}

// evicted says whether the model has forgotten a producer.
func (o *oracle) evicted(id [16]byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.model.gone[id] > 0
}

// reads checks what a reader got of a node.
func (o *oracle) reads(n *simNode, batches []commitlog.RecordBatch, visible uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	id := n.id
	if !n.alive.Load() {
		return
	}
	o.counts.Reads++
	if visible > uint64(len(o.content)) {
		o.violated("committed only", "%s shows offsets up to %d, only %d are committed", id, visible, len(o.content))
		return
	}
	for _, b := range batches {
		got := texts(b.Records)
		if len(got) != int(b.Count) {
			o.violated("committed only", "%s reads %d records of %d at %d", id, len(got), b.Count, b.FirstOffset)
			return
		}
		for i, msg := range got {
			off := b.FirstOffset + uint64(i)
			if off >= uint64(len(o.content)) || o.content[off] != msg {
				o.violated("committed only", "%s reads %q at offset %d, which is not what is committed there", id, msg, off)
				return
			}
		}
	}
}

// ended judges why a node stopped by itself.
func (o *oracle) ended(n *simNode, err error) {
	if err == nil || !n.alive.Load() {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.counts.Ends++
	o.note(n.id, "stops: "+err.Error())
	switch {
	case errors.Is(err, ErrRaftStopped):
		if !n.leaving.Load() {
			o.violated("stops", "%s: %v", n.id, err)
		}
	case !n.faulty.Load():
		o.violated("stops", "%s: %v", n.id, err)
	}
}
