package replica

// keptNotes is how many announced entries a node remembers its state at.
const keptNotes = 64

// note is what the state machine was just after an announcement was applied.
type note struct{ index, digest uint64 }

// notes are the newest ones, oldest overwritten first, and what is known of what
// came since. They are no part of the machine: a node that starts, or takes over
// a checkpoint, has none of what lies before.
type notes struct {
	ring  [keptNotes]note
	n     uint64 // noted so far
	fresh bool   // something was applied since the newest
	owed  bool   // and before it: its digest has not been announced yet

	wanted int // announcements that somebody in doubt waits for
}

func (s *notes) newest() note {
	if s.n == 0 {
		return note{}
	}
	return s.ring[(s.n-1)%keptNotes]
}

func (s *notes) find(index uint64) (digest uint64, ok bool) {
	for i := range min(s.n, keptNotes) {
		if n := s.ring[(s.n-1-i)%keptNotes]; n.index == index {
			return n.digest, true
		}
	}
	return 0, false
}

// add notes the state at an announcement.
func (s *notes) add(n note) {
	s.ring[s.n%keptNotes] = n
	s.n++
	s.owed, s.fresh = s.fresh, false
	s.wanted = max(s.wanted-1, 0)
}

// due says whether an announcement has something to say: entries were applied
// since the newest, or those before it have not been compared. An idle log is
// announced twice and then no more, but to a node in doubt.
func (s *notes) due() bool { return s.fresh || s.owed || s.wanted > 0 }

// printVersion is the lowest byte of every fingerprint. Whoever changes what goes
// into one raises it: nodes of two versions have nothing to compare.
const printVersion = 1

// sameVersion says whether a fingerprint is of this version.
func sameVersion(digest uint64) bool { return byte(digest) == printVersion }

// fingerprint is one number for the whole machine: what it was given, which the
// hash has, and what it made of that. Of the request keys, of which there are
// many, it takes another sixteenth each time, chosen by the hash.
func (m *machine) fingerprint() uint64 {
	h := mix(m.hash, m.applied)
	h = mix(mix(mix(h, m.next), m.lowest), m.bytes)
	for _, c := range []byte(m.cluster) {
		h = mix(h, uint64(c))
	}
	h = mix(h, uint64(m.producers.order.Len()))
	for e := m.producers.order.Front(); e != nil; e = e.Next() {
		p := e.Value.(*producer)
		h = mix(mixID(h, p.id), p.owner)
		h = mix(mix(mix(h, uint64(p.epoch)), p.nextSeq), uint64(p.kept))
		for _, r := range p.window[:p.kept] {
			h = mix(mix(mix(h, r.firstSeq), r.offset), uint64(r.count))
		}
	}
	const parts = 16
	n := len(m.keys.ring)
	h = mix(h, uint64(n))
	part := int(m.hash % parts)
	for i := part * n / parts; i < (part+1)*n/parts; i++ {
		key := m.keys.ring[(m.keys.head+i)%n]
		h = mix(mixID(h, key), m.keys.byKey[key])
	}
	return h&^0xff | printVersion
}

func mixID(h uint64, id [16]byte) uint64 {
	var a, b uint64
	for i := range 8 {
		a, b = a<<8|uint64(id[i]), b<<8|uint64(id[8+i])
	}
	return mix(mix(h, a), b)
}
