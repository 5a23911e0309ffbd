package replica

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Which answers a round counts: of its own term, to what was started after it began.
func TestWhoAnsweredARound(t *testing.T) {
	s := newReads(nil, false)
	before := s.started()
	s.acknowledged("a", 3, before)
	s.begin(3)
	s.acknowledged("b", 3, before)
	s.acknowledged("c", 2, s.started())
	s.acknowledged("d", 4, s.started())
	require.Empty(t, s.answered())
	s.acknowledged("e", 3, s.started())
	s.acknowledged("e", 3, s.started())
	require.Equal(t, map[string]bool{"e": true}, s.answered())
	first := s.started()
	s.end()
	s.acknowledged("f", 3, first)
	s.begin(3)
	s.acknowledged("e", 3, first)
	require.Empty(t, s.answered(), "the next round does not count answers to the one before")
	s.acknowledged("f", 3, s.started())
	require.Equal(t, map[string]bool{"f": true}, s.answered())
	s.end()
}
