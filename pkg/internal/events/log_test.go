package events_test

import (
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/logd-io/logd/pkg/internal/events"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func texts(es []events.Event) (out []string) {
	for _, e := range es {
		out = append(out, e.Text)
	}
	return out
}

func TestWhoResumesGetsTheRestAndIsToldWhatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := events.New()
		add := func(n int) {
			for range n {
				l.Addf("leader", events.Info, "", "x")
				time.Sleep(time.Second)
				l.Flush()
			}
		}
		add(3)
		all, gone := l.Since(0)
		require.Len(t, all, 3)
		require.Zero(t, gone)
		require.Equal(t, all[0].ID+1, all[1].ID)
		rest, gone := l.Since(all[1].ID)
		require.Equal(t, all[2:], rest)
		require.Zero(t, gone)
		none, gone := l.Since(all[2].ID)
		require.Empty(t, none)
		require.Zero(t, gone)

		add(300) // more than are kept
		rest, gone = l.Since(all[2].ID)
		require.Len(t, rest, 256)
		require.EqualValues(t, 300-256, gone)
		require.Equal(t, rest[250:], l.Last(6))
	})
}

// A browser reconnects to a process that was started again: its last id is from before.
func TestIdsOfAnotherProcessAreAsGoodAsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := events.New()
		before.Addf("leader", events.Info, "", "old")
		time.Sleep(time.Second)
		now := events.New()
		now.Addf("leader", events.Info, "", "new")
		old := before.Last(1)[0].ID
		es, gone := now.Since(old)
		require.Equal(t, []string{"new"}, texts(es))
		require.Zero(t, gone)
		require.Greater(t, es[0].ID, old)
		es, _ = now.Since(es[0].ID + 1_000_000)
		require.Equal(t, []string{"new"}, texts(es), "an id from the future would wait for ever")
	})
}

func TestAStormOfOneKindIsTwoEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := events.New()
		for range 10_000 {
			l.Add(events.Event{Kind: "ejected", Node: "n1", Severity: events.Warning, Text: "rests", Count: 2})
		}
		l.Addf("ejected", events.Warning, "n2", "another node's is its own")
		l.Flush()
		require.Len(t, l.Last(9), 2, "the first of each at once")
		time.Sleep(time.Second)
		l.Flush()
		es := l.Last(9)
		require.Len(t, es, 3)
		require.Equal(t, 9_999, es[2].Times)
		require.EqualValues(t, 2*9_999, es[2].Count)
		require.EqualValues(t, 2, es[0].Count)
		require.Zero(t, es[0].Times)

		l.Addf("ejected", events.Warning, "n1", "once more")
		time.Sleep(time.Second)
		l.Flush()
		require.Equal(t, "once more", l.Last(1)[0].Text)
		require.Zero(t, l.Last(1)[0].Times, "one is told as one")
	})
}

func TestNothingIsMissedByWhoTakesChangesFirst(t *testing.T) {
	l := events.New()
	var wg sync.WaitGroup
	const kinds = 100
	for range 3 {
		wg.Go(func() {
			var last uint64
			for seen := 0; seen < kinds; {
				grew := l.Changes()
				es, gone := l.Since(last)
				if gone > 0 {
					t.Errorf("%d gone", gone)
				}
				if len(es) == 0 {
					<-grew
					continue
				}
				seen += len(es)
				last = es[len(es)-1].ID
			}
		})
	}
	for i := range kinds {
		l.Addf(strings.Repeat("k", i+1), events.Info, "", "x")
	}
	wg.Wait()
}

func TestTextsAreBoundedAndText(t *testing.T) {
	l := events.New()
	l.Addf(strings.Repeat("k", 1<<20), events.Info, strings.Repeat("n", 1<<20), "%s", strings.Repeat("é", 1<<20))
	l.Addf("x", events.Info, "", "a\xff")
	es := l.Last(2)
	require.Less(t, len(es[0].Kind)+len(es[0].Node)+len(es[0].Text), 1000)
	require.True(t, strings.HasSuffix(es[0].Text, "é…"), es[0].Text)
	require.Equal(t, "a�", es[1].Text)
}

func TestNilIsQuiet(t *testing.T) {
	var l *events.Log
	l.Add(events.Event{})
	l.Addf("x", events.Info, "", "x")
	l.Flush()
	require.Nil(t, l.Changes())
	require.Empty(t, l.Last(3))
}
