package control

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// said is one sentence of a node about who leads.
type said struct {
	from   string
	term   uint64
	leader string
}

func TestLeadership(t *testing.T) {
	for _, c := range []struct {
		name   string
		heard  []said
		term   uint64
		leader string // empty: hold
	}{
		{"nobody said anything", nil, 0, ""},
		{"one says", []said{{"a", 3, "b"}}, 3, "b"},
		{"the higher term wins", []said{{"a", 3, "b"}, {"c", 4, "c"}}, 4, "c"},
		{"a lower term changes nothing", []said{{"c", 4, "c"}, {"a", 3, "b"}}, 4, "c"},
		{"at one term a leader beats none", []said{{"a", 3, ""}, {"b", 3, "b"}, {"c", 3, ""}}, 3, "b"},
		{"a higher term without a leader is a hold", []said{{"a", 3, "b"}, {"c", 4, ""}}, 4, ""},
		{"and stays one whatever is said of the lower term", []said{{"a", 3, "b"}, {"c", 4, ""}, {"b", 3, "b"}}, 4, ""},
		{"until that term has one", []said{{"a", 3, "b"}, {"c", 4, ""}, {"a", 4, "a"}}, 4, "a"},
		{"a leader that gives up its term is believed", []said{{"a", 3, "b"}, {"b", 3, ""}}, 3, ""},
		{"against the others", []said{{"a", 3, "b"}, {"b", 3, ""}, {"a", 3, "b"}, {"c", 3, "b"}}, 3, ""},
		{"until it takes it back: it had spoken before it won", []said{{"a", 3, "b"}, {"b", 3, ""}, {"b", 3, "b"}}, 3, "b"},
		{"a new term forgets who gave up", []said{{"a", 3, "b"}, {"b", 3, ""}, {"a", 4, "b"}}, 4, "b"},
		{"a nameless voice gives nothing up", []said{{"a", 3, "b"}, {"", 3, ""}}, 3, "b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var l leadership
			for _, s := range c.heard {
				require.False(t, l.hear(s.from, s.term, s.leader))
			}
			require.Equal(t, c.term, l.term)
			require.Equal(t, c.leader, l.current())
		})
	}
}

func TestTwoLeadersOfOneTermAreAContradiction(t *testing.T) {
	var l leadership
	require.False(t, l.hear("a", 3, "b"))
	require.True(t, l.hear("a", 3, "c"))
	require.Equal(t, "b", l.current(), "one rumour is as good as another")
	require.True(t, l.hear("c", 3, "c"))
	require.Equal(t, "c", l.current(), "its own word counts for more")
	require.True(t, l.hear("b", 3, "b"))
	require.Equal(t, "c", l.current())
	require.True(t, l.hear("a", 3, "b"))
	require.Equal(t, "c", l.current())
}
