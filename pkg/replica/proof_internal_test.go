package replica

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func said(id string, term uint64, what string, voters ...string) witness {
	w := witness{id: id, Standing: Standing{Term: term, Running: true, Voters: voters}}
	for _, c := range what {
		switch c {
		case 'l':
			w.lacks = true
		case 'L':
			w.Leads = true
		case 'i': // idle: it repairs itself
			w.Running, w.Voters = false, nil
		}
	}
	return w
}

// What may be cut off, and what may not: we are "a", and our stored term is 5.
func TestNeverCommitted(t *testing.T) {
	three, five, four, two := []string{"a", "b", "c"}, []string{"a", "b", "c", "d", "e"}, []string{"a", "b", "c", "d"}, []string{"a", "b"}
	for name, tc := range map[string]struct {
		own    uint64
		voters []string
		said   []witness
		want   bool
	}{
		"both others lack it":                          {5, three, []witness{said("b", 5, "l"), said("c", 5, "l")}, true},
		"both lack it, whatever their term":            {5, three, []witness{said("b", 3, "l"), said("c", 4, "l")}, true},
		"both lack it, our own term is lost":           {0, three, []witness{said("b", 5, "l"), said("c", 5, "l")}, true},
		"one has it":                                   {5, three, []witness{said("b", 6, "l"), said("c", 6, "")}, false},
		"one was not heard":                            {5, three, []witness{said("b", 6, "l")}, false},
		"one is damaged itself":                        {5, three, []witness{said("b", 6, "l"), said("c", 6, "li")}, false},
		"nobody was heard":                             {5, three, nil, false},
		"we are alone":                                 {5, []string{"a"}, nil, false},
		"of two: we alone may have removed the other":  {5, two, []witness{said("b", 6, "l")}, false},
		"of four: two that lack it":                    {5, four, []witness{said("b", 6, "l"), said("c", 6, "l")}, false},
		"of four: all three":                           {5, four, []witness{said("b", 5, "l"), said("c", 5, "l"), said("d", 5, "l")}, true},
		"of five: three, in later terms":               {5, five, []witness{said("b", 6, "l"), said("c", 6, "l"), said("d", 7, "l")}, true},
		"of five: two, in later terms":                 {5, five, []witness{said("b", 6, "l"), said("c", 6, "l")}, false},
		"of five: the leader of our term may count us": {5, five, []witness{said("b", 5, "l"), said("c", 5, "l"), said("d", 5, "l")}, false},
		"of five: it is among them":                    {5, five, []witness{said("b", 5, "lL"), said("c", 5, "l"), said("d", 5, "l")}, true},
		"of five: a leader of a later term does not speak for those in ours": {5, five,
			[]witness{said("b", 6, "lL"), said("c", 5, "l"), said("d", 5, "l")}, false},
		"of five: one in an earlier term may still acknowledge it": {5, five,
			[]witness{said("b", 4, "l"), said("c", 6, "l"), said("d", 6, "l")}, false},
		"of five: our own term is lost": {0, five, []witness{said("b", 6, "l"), said("c", 6, "l"), said("d", 6, "l")}, false},
		"one of them knows a larger configuration": {5, three,
			[]witness{said("b", 6, "l", five...), said("c", 6, "l")}, false},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, tc.want, neverCommitted("a", tc.own, [][]string{tc.voters}, tc.said))
		})
	}
}

func TestSafeTerm(t *testing.T) {
	three, five := []string{"a", "b", "c"}, []string{"a", "b", "c", "d", "e"}
	for name, tc := range map[string]struct {
		voters []string
		said   []witness
		want   uint64 // 0: too few
	}{
		"all were heard":                {three, []witness{said("b", 7, ""), said("c", 9, "")}, 10},
		"our log knows a later term":    {three, []witness{said("b", 2, ""), said("c", 3, "")}, 5},
		"one is missing":                {three, []witness{said("b", 7, "")}, 0},
		"one does not know its own":     {three, []witness{said("b", 7, ""), said("c", 0, "i")}, 0},
		"we are alone":                  {[]string{"a"}, nil, 0},
		"of five, one is missing":       {five, []witness{said("b", 7, ""), said("c", 9, ""), said("d", 8, "")}, 9 + unheardTerms + 1},
		"of five, two are missing":      {five, []witness{said("b", 7, ""), said("c", 9, "")}, 0},
		"one that repairs is heard":     {three, []witness{said("b", 7, "i"), said("c", 9, "")}, 10},
		"a voter we did not know of":    {three, []witness{said("b", 7, "", "a", "b", "c", "d"), said("c", 9, "")}, 9 + unheardTerms + 1},
		"two voters we knew nothing of": {three, []witness{said("b", 7, "", five...), said("c", 9, "")}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			term, ok := safeTerm("a", 4, [][]string{tc.voters}, tc.said)
			require.Equal(t, tc.want != 0, ok)
			if ok {
				require.Equal(t, tc.want, term)
			}
		})
	}
}
