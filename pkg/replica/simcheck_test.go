package replica

import (
	"errors"
	"hash/crc32"
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
	by      []uint64             // the term in which it was known to be committed, by index; not before it was
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

type appliedAt struct {
	term   uint64
	crc    uint32
	digest uint32
}

func newOracle(model *simModel) *oracle {
	return &oracle{
		begin: time.Now(), stop: make(chan struct{}), model: model,
		entries: map[place]fact{}, chosen: make([]uint64, 1), by: make([]uint64, 1), leaders: map[uint64]string{}, lasts: map[uint64]appliedAt{},
		configs: map[place]string{}, shadows: map[string]*shadow{}, first: map[string]uint64{}, unknown: map[string]int{},
	}
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
		o.by = append(o.by, s.term())
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
		if !n.host.leaving.Load() {
			o.violated("stops", "%s: %v", n.id, err)
		}
	case !n.faulty.Load():
		o.violated("stops", "%s: %v", n.id, err)
	}
}
