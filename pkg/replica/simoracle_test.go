package replica

import (
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

// Votes of term 23 that arrive after term 24 has committed an entry of term 22 make a
// leader that has not got it, and need not have.
func TestLeaderCompletenessIsOfTheCommittingTerm(t *testing.T) {
	for by, want := range map[uint64]bool{22: false, 23: true, 24: true} {
		o := newOracle(newSimModel(1, 1))
		n := &simNode{id: "n2.00000001"}
		n.alive.Store(true)
		o.chosen, o.by = []uint64{0, 22}, []uint64{0, by}
		o.became(n, raft.Leader, 23)
		require.Equal(t, want, o.found == nil, "committed by term %d: %v", by, o.found)
	}
}

// A vote counts once it is stored: one that a crash took with it was given to nobody.
func TestAVoteCountsOnceItIsStored(t *testing.T) {
	const id, term = "n4.00000004", "\x00\x00\x00\x00\x00\x00\x00\x32"
	for name, tc := range map[string]struct {
		stored string // in the end, of the vote for itself
		want   string // violated
	}{
		"it was lost":             {"", ""},
		"it was there after all":  {id, "one vote a term"},
		"something else is there": {"n2.00000001", "vote and term stay"},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOracle(newSimModel(1, 1))
			n := &simNode{id: id}
			n.alive.Store(true)
			stable := map[string]string{"CurrentTerm": term, "LastVoteTerm": term}
			open := func() {
				o.recalled(id, o.shadow(id), func(key string) string { return stable[key] })
			}
			open()
			o.setting(n, "LastVoteCand", id) // and it dies
			stable["LastVoteCand"] = tc.stored
			open()
			if o.found == nil {
				o.setting(n, "LastVoteCand", "n10.00000002")
			}
			if tc.want == "" {
				require.Nil(t, o.found)
				return
			}
			require.NotNil(t, o.found)
			require.Equal(t, tc.want, o.found.check)
		})
	}
}
