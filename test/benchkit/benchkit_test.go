package benchkit

import (
	"context"
	"errors"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A goal whose verdict is always ok is worth nothing.
func TestVerdicts(t *testing.T) {
	for want, got := range map[string]string{
		"GOAL a/b 0.900 s >=0.85 s ok":     Goal.line("a/b", 0.9, ">=", 0.85, " s"),
		"GOAL a/b 0.850 >=0.85 ok":         Goal.line("a/b", 0.85, ">=", 0.85, ""),
		"GOAL a/b 0.800 >=0.85 MISS":       Goal.line("a/b", 0.8, ">=", 0.85, ""),
		"NEXT a 26.000MiB <=25.00MiB MISS": Next.line("a", 26, "<=", 25, "MiB"),
		"NEXT a 24.000MiB <=25.00MiB ok":   Next.line("a", 24, "<=", 25, "MiB"),
		"GOAL a NaN >=1.00 MISS":           Goal.line("a", math.NaN(), ">=", 1, ""),
		"GOAL a NaN <=1.00 MISS":           Goal.line("a", math.NaN(), "<=", 1, ""),
	} {
		require.Equal(t, want, got)
	}
}

func TestEveryContenderHasItsTurnFirst(t *testing.T) {
	var order []int
	var took []time.Duration
	s := Settings{Rounds: 3, Time: 4 * time.Second}
	got, err := Interleave(t.Context(), s, 3, func(_ context.Context, i int, d time.Duration) (int, error) {
		order, took = append(order, i), append(took, d)
		return len(order), nil
	})
	require.NoError(t, err)
	require.Equal(t, []int{0, 1, 2, 0, 1, 2, 1, 2, 0, 2, 0, 1}, order)
	require.Equal(t, [][]int{{4, 9, 11}, {5, 7, 12}, {6, 8, 10}}, got, "by contender, by round, without the warm-up")
	for i, d := range took {
		want := s.Time
		if i < 3 {
			want = warmUp
		}
		require.Equal(t, want, d)
	}

	broken := errors.New("broken")
	_, err = Interleave(t.Context(), s, 2, func(_ context.Context, i int, _ time.Duration) (int, error) {
		if i == 1 {
			return 0, broken
		}
		return 0, nil
	})
	require.ErrorIs(t, err, broken)
}

func TestMedianAndRatio(t *testing.T) {
	same := func(f float64) float64 { return f }
	require.InDelta(t, 3, Median([]float64{9, 1, 3}, same), 0)
	// Every round was twice as fast, on a machine that got slower and slower.
	require.InDelta(t, 2, Ratio([]float64{20, 8, 2}, []float64{10, 4, 1}, same), 0)
}

func TestRunCountsCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		load, err := Run(t.Context(), 4, time.Second, func(_ context.Context, worker int) error {
			time.Sleep(100 * time.Millisecond)
			if worker == 3 {
				time.Sleep(100 * time.Millisecond)
			}
			return nil
		})
		require.NoError(t, err)
		require.Equal(t, 3*10+5, load.Count)
		require.InDelta(t, 35, load.PerSecond, 0.001)
		require.Equal(t, 100*time.Millisecond, load.P50)
		require.Equal(t, 200*time.Millisecond, load.P99)
	})
}

func TestRunFailsWithTheFirstError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken")
		begun := time.Now()
		_, err := Run(t.Context(), 2, time.Hour, func(ctx context.Context, worker int) error {
			if worker == 1 {
				time.Sleep(time.Second)
				return broken
			}
			<-ctx.Done()
			return ctx.Err()
		})
		require.ErrorIs(t, err, broken)
		require.Equal(t, time.Second, time.Since(begun), "the other worker is told to end")
	})
}

func TestPickFigures(t *testing.T) {
	c := Command{Figures: []Figure{{Name: "a"}, {Name: "b", Extra: true}}}
	figures, err := c.pick([]string{"b", "a"})
	require.NoError(t, err)
	require.Equal(t, []string{"b", "a"}, []string{figures[0].Name, figures[1].Name})
	_, err = c.pick([]string{"a", "c"})
	require.ErrorContains(t, err, `"c"`)
}
