package replica

import (
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/vfs"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

func TestRule(t *testing.T) {
	const own, x, y = 1, 2, 3
	is := func(digest uint64) answer { return answer{known: true, digest: digest} }
	vague := answer{}
	for name, tc := range map[string]struct {
		voters  []string
		answers map[string]answer
		want    ruling
		votes   int
	}{
		"one other agrees":                          {[]string{"me", "b", "c"}, map[string]answer{"b": is(own)}, rulingInnocent, 2},
		"the others agree with each other":          {[]string{"me", "b", "c"}, map[string]answer{"b": is(x), "c": is(x)}, rulingGuilty, 2},
		"one other differs, one is silent":          {[]string{"me", "b", "c"}, map[string]answer{"b": is(x)}, rulingWait, 0},
		"nobody has answered":                       {[]string{"me", "b", "c"}, nil, rulingWait, 0},
		"all three differ":                          {[]string{"me", "b", "c"}, map[string]answer{"b": is(x), "c": is(y)}, rulingNobody, 0},
		"one differs, one does not remember":        {[]string{"me", "b", "c"}, map[string]answer{"b": is(x), "c": vague}, rulingUndecided, 0},
		"one agrees, one does not remember":         {[]string{"me", "b", "c"}, map[string]answer{"b": is(own), "c": vague}, rulingInnocent, 2},
		"two do not remember":                       {[]string{"me", "b", "c"}, map[string]answer{"b": vague, "c": vague}, rulingUndecided, 0},
		"two voters that differ":                    {[]string{"me", "b"}, map[string]answer{"b": is(x)}, rulingNobody, 0},
		"a non-voter against two":                   {[]string{"b", "c"}, map[string]answer{"b": is(x), "c": is(x)}, rulingGuilty, 2},
		"a non-voter's word is none":                {[]string{"b", "c", "d"}, map[string]answer{"b": is(own), "c": is(x)}, rulingWait, 0},
		"strangers do not count":                    {[]string{"me", "b", "c"}, map[string]answer{"z": is(own)}, rulingWait, 0},
		"five, two and two and silence":             {[]string{"me", "b", "c", "d", "e"}, map[string]answer{"b": is(own), "c": is(x), "d": is(x)}, rulingWait, 0},
		"five, two and two and one":                 {[]string{"me", "b", "c", "d", "e"}, map[string]answer{"b": is(own), "c": is(x), "d": is(x), "e": is(y)}, rulingNobody, 0},
		"five, three against us":                    {[]string{"me", "b", "c", "d", "e"}, map[string]answer{"b": is(x), "c": is(x), "d": is(x)}, rulingGuilty, 3},
		"five, all apart: the silent one is no use": {[]string{"me", "b", "c", "d", "e"}, map[string]answer{"b": is(7), "c": is(8), "d": is(9)}, rulingNobody, 0},
	} {
		t.Run(name, func(t *testing.T) {
			got, _, votes := rule("me", own, tc.voters, tc.answers)
			require.Equal(t, tc.want, got)
			require.Equal(t, tc.votes, votes)
		})
	}
}

func TestNotes(t *testing.T) {
	var s notes
	require.False(t, s.due())
	require.Equal(t, note{}, s.newest())
	s.fresh = true
	require.True(t, s.due())
	for i := uint64(1); i <= 3*keptNotes; i++ {
		s.add(note{i, i * 10})
		require.Equal(t, note{i, i * 10}, s.newest())
		for k := uint64(1); k <= i; k++ {
			digest, ok := s.find(k)
			require.Equal(t, i-k < keptNotes, ok, "%d of %d", k, i)
			if ok {
				require.Equal(t, k*10, digest)
			}
		}
		// The first of them owes its own comparison, and then all is said.
		require.Equal(t, i == 1, s.due(), i)
	}
	_, ok := s.find(0)
	require.False(t, ok)
}

// The fingerprint takes in everything the machine decided by, and survives a
// checkpoint. Equal machines have equal ones.
func TestFingerprint(t *testing.T) {
	build := func() *machine {
		m := newMachine()
		m.cluster = "00000000-0000-4000-8000-000000000000"
		m.applied, m.term, m.next, m.bytes, m.hash = 100, 3, 50, 5000, 16
		for i := range byte(5) {
			h := &header{producer: [16]byte{i + 1}, owner: uint64(i), count: 2}
			for k := range uint64(7) {
				h.firstSeq = 2 * k
				m.producers.append(h, 10*uint64(i)+k)
			}
		}
		for i := range 200 {
			m.keys.add([16]byte{byte(i), 1}, uint64(i))
		}
		return m
	}
	m := build()
	digest := m.fingerprint()
	require.Equal(t, digest, build().fingerprint())
	again, err := decodeMachine(m.encode())
	require.NoError(t, err)
	require.Equal(t, digest, again.fingerprint())
	front := func(m *machine) *producer { return m.producers.order.Front().Value.(*producer) }
	for name, change := range map[string]func(*machine){
		"hash":     func(m *machine) { m.hash ^= 1 << 60 },
		"next":     func(m *machine) { m.next++ },
		"lowest":   func(m *machine) { m.lowest++ },
		"bytes":    func(m *machine) { m.bytes++ },
		"applied":  func(m *machine) { m.applied++ },
		"cluster":  func(m *machine) { m.cluster = "" },
		"producer": func(m *machine) { front(m).id[9] ^= 1 },
		"owner":    func(m *machine) { front(m).owner ^= 1 },
		"epoch":    func(m *machine) { front(m).epoch ^= 1 },
		"sequence": func(m *machine) { front(m).nextSeq ^= 1 },
		"window":   func(m *machine) { front(m).window[2].count ^= 1 },
		"kept":     func(m *machine) { front(m).kept-- },
		"order":    func(m *machine) { m.producers.order.MoveToBack(m.producers.order.Front()) },
		"keys":     func(m *machine) { m.keys.add([16]byte{9, 9}, 1) },
		"a key": func(m *machine) { // of the sixteenth that is looked at
			for k := range m.keys.byKey {
				m.keys.byKey[k] ^= 1 << 30
			}
		},
	} {
		m := build()
		change(m)
		require.NotEqual(t, digest, m.fingerprint(), name)
	}
	// With the ring gone round, what counts is the order and not the place.
	a, b := newRequestKeys(8), newRequestKeys(8)
	for i := range 13 {
		a.add([16]byte{byte(i)}, uint64(i))
	}
	a.each(func(k [16]byte, off uint64) { b.add(k, off) })
	x, y := newMachine(), newMachine()
	x.keys, y.keys = a, b
	for h := range uint64(16) {
		x.hash, y.hash = h, h
		require.Equal(t, x.fingerprint(), y.fingerprint())
	}
}

func TestAnnouncementPayload(t *testing.T) {
	a := announcement{index: 7, digest: 1 << 63, by: "n1.00000001"}
	require.Equal(t, &a, announced(encodeAnnounce(a)))
	require.Nil(t, announced(encodeLowest(5)))
	require.Nil(t, announced([]byte{kindData}))
	for _, b := range [][]byte{encodeAnnounce(a)[:17], append(encodeAnnounce(a), make([]byte, maxIDLen)...)} {
		_, err := decodeControl(b)
		require.ErrorIs(t, err, errPayload)
	}
	m := newMachine()
	require.NoError(t, m.control(1, encodeAnnounce(a)))
	require.Equal(t, newMachine(), m, "an announcement changes nothing")
}

func TestMark(t *testing.T) {
	fs := memfs.New()
	require.NoError(t, fs.MkdirAll("d"))
	require.NoError(t, checkMark(fs, "d"))
	e := &DivergenceError{Node: "n1.00000001", Index: 9, Own: 1, Majority: 2, Votes: 2, Voters: 3}
	require.NoError(t, e.mark(fs, "d"))
	var found *DivergenceError
	require.ErrorAs(t, checkMark(fs.Crash(1), "d"), &found)
	e.Path = "d/" + divergedFile
	require.Equal(t, e, found)
	require.ErrorContains(t, found, "remove node n1.00000001")
	require.NoError(t, (&DivergenceError{Node: "n1.00000001", Index: 9, Voters: 3}).mark(fs, "d"))
	require.ErrorContains(t, checkMark(fs, "d"), "delete that file on those that are right")
	require.NoError(t, vfs.WriteFileAtomic(fs, "d/"+divergedFile, []byte("{")))
	require.ErrorContains(t, checkMark(fs, "d"), "is damaged itself")
}

// Where nodes of two versions meet, neither has anything to say of the other.
func TestFingerprintsOfTwoVersionsAreNotCompared(t *testing.T) {
	f := &fsm{m: newMachine()}
	f.heard(5, &announcement{})
	require.Empty(t, f.seen)
	own, ok := f.notes.find(5)
	require.True(t, ok)
	require.True(t, sameVersion(own))
	f.heard(6, &announcement{index: 5, digest: own ^ 3})
	f.heard(7, &announcement{index: 5, digest: own ^ 1<<8})
	f.heard(8, &announcement{index: 4, digest: own})
	require.Equal(t, []comparison{
		{index: 5, announced: own ^ 3, own: own},
		{index: 5, announced: own ^ 1<<8, own: own, known: true},
		{index: 4, announced: own},
	}, f.seen)
}

// A doubt ends when another leader's state at a later entry is this node's. One's
// own word, at whatever entry, and another's at an earlier one, say nothing.
func TestWhatEndsADoubt(t *testing.T) {
	const me, other = "n1.00000001", "n2.00000002"
	e := &engine{r: &Replica{cfg: Config{ID: me}, logger: hclog.NewNullLogger()}, changed: make(chan struct{}, 1)}
	d := &detector{e: e, metrics: newDetectorMetrics(nil), wake: make(chan struct{}, 1)}
	said := func(index uint64, by string, announced uint64, known bool) bool {
		d.compared([]comparison{{index: index, announced: announced, own: 7, by: by, known: known}})
		return d.doubted()
	}
	require.False(t, said(10, other, 7, true))
	require.True(t, said(20, other, 8, true))
	require.Len(t, d.wake, 1, "it asks")
	require.True(t, said(30, me, 7, true), "it leads, and agrees with itself")
	require.True(t, said(15, other, 7, true), "an earlier entry")
	require.True(t, said(20, other, 7, true), "the same entry")
	require.True(t, said(40, other, 8, false), "it does not remember")
	require.Equal(t, uint64(20), d.doubt.index)
	require.True(t, said(50, other, 9, true))
	require.Equal(t, uint64(50), d.doubt.index, "the newest is asked about")
	d.differs(note{50, 7}, other, 9)
	d.differs(note{45, 7}, other, 9)
	require.Equal(t, map[string]answer{other: {known: true, digest: 9}}, d.doubt.answers)
	require.False(t, said(60, other, 7, true))
}
