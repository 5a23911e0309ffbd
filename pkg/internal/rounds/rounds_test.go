package rounds_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/internal/rounds"
)

// script is rounds that a test lets go one by one.
type script struct {
	began chan int      // calls of each round as it begins
	let   chan struct{} // one for each round that may end
	n     int           // rounds begun
}

func newScript() *script { return &script{began: make(chan int, 16), let: make(chan struct{})} }

func (s *script) run(ctx context.Context, calls int) (int, error) {
	s.n++
	n := s.n
	s.began <- calls
	select {
	case <-s.let:
		return n, nil
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// A call never gets the answer of a round that was under way when it came, and
// those that come meanwhile share the next one.
func TestCallsShareTheRoundThatHasNotBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript()
		g := rounds.New(s.run)
		defer g.Close()
		answers := make(chan int, 16)
		call := func() {
			n, err := g.Do(context.Background())
			require.NoError(t, err)
			answers <- n
		}
		go call()
		require.Equal(t, 1, <-s.began)
		for range 10 {
			go call()
		}
		synctest.Wait() // all ten wait
		s.let <- struct{}{}
		require.Equal(t, 1, <-answers)
		require.Equal(t, 10, <-s.began)
		synctest.Wait()
		require.Empty(t, answers)
		s.let <- struct{}{}
		for range 10 {
			require.Equal(t, 2, <-answers)
		}
		go call()
		require.Equal(t, 1, <-s.began)
		s.let <- struct{}{}
		require.Equal(t, 3, <-answers)
	})
}

// A round ends when all of its calls have given up, and not before.
func TestARoundIsForThoseWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript()
		g := rounds.New(s.run)
		defer g.Close()
		gone := errors.New("gone")
		ended := make(chan error, 16)
		call := func() context.CancelCauseFunc {
			ctx, cancel := context.WithCancelCause(context.Background())
			go func() {
				_, err := g.Do(ctx)
				ended <- err
			}()
			synctest.Wait()
			return cancel
		}
		first := call()
		<-s.began
		second, third := call(), call()
		second(gone)
		require.ErrorIs(t, <-ended, gone)
		first(gone) // the only call of the round under way, which ends
		require.ErrorIs(t, <-ended, gone)
		require.Equal(t, 1, <-s.began, "the second round is for the third call only")
		s.let <- struct{}{}
		require.NoError(t, <-ended)
		third(nil)

		// One that is given up before it begins does not run, and nobody joins it.
		fourth := call()
		<-s.began
		fifth := call()
		fifth(gone)
		require.ErrorIs(t, <-ended, gone)
		call()
		fourth(gone)
		require.ErrorIs(t, <-ended, gone)
		require.Equal(t, 1, <-s.began)
		s.let <- struct{}{}
		require.NoError(t, <-ended)
	})
}

func TestCloseEndsEveryone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript()
		g := rounds.New(s.run)
		ended := make(chan error, 2)
		for range 2 {
			go func() {
				_, err := g.Do(context.Background())
				ended <- err
			}()
			synctest.Wait()
		}
		g.Close()
		g.Close()
		for range 2 {
			require.ErrorIs(t, <-ended, rounds.ErrClosed)
		}
		_, err := g.Do(context.Background())
		require.ErrorIs(t, err, rounds.ErrClosed)
	})
}
