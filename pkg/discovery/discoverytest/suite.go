package discoverytest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/discovery"
)

// bound is for a machine that hangs; it claims nothing about speed.
const bound = 20 * time.Second

// Suite describes a source that has something to tell at once.
type Suite struct {
	// New makes a source that will send First, which is not empty.
	New   func(t *testing.T) discovery.Source
	First []discovery.Node
}

// Run runs the suite.
func (s Suite) Run(t *testing.T) {
	start := func(t *testing.T, src discovery.Source) (up chan []discovery.Node, stop func() error) {
		ctx, cancel := context.WithCancelCause(context.Background())
		up = make(chan []discovery.Node) // unbuffered: a source must bear a busy receiver
		done := make(chan error, 1)
		go func() { done <- src.Run(ctx, up) }()
		why := errors.New("enough")
		stop = func() error {
			cancel(why)
			limit, release := context.WithTimeout(context.Background(), bound)
			defer release()
			select {
			case err := <-done:
				if !errors.Is(err, why) {
					return errors.Join(errors.New("the source did not answer the cause"), err)
				}
				return nil
			case <-limit.Done():
				return errors.New("the source does not stop")
			}
		}
		t.Cleanup(func() { cancel(why) })
		return up, stop
	}
	receive := func(t *testing.T, up chan []discovery.Node) []discovery.Node {
		limit, release := context.WithTimeout(context.Background(), bound)
		defer release()
		select {
		case set := <-up:
			return set
		case <-limit.Done():
			t.Fatal("the source says nothing")
			return nil
		}
	}

	t.Run("sends the whole set at once, sorted, without duplicates", func(t *testing.T) {
		up, stop := start(t, s.New(t))
		set := receive(t, up)
		require.Equal(t, s.First, set)
		require.Equal(t, discovery.Set(slices.Clone(set)), set)
		require.NoError(t, stop())
	})
	t.Run("stops while nobody receives", func(t *testing.T) {
		_, stop := start(t, s.New(t))
		require.NoError(t, stop())
	})
	t.Run("stops while there is nothing to say", func(t *testing.T) {
		up, stop := start(t, s.New(t))
		receive(t, up)
		require.NoError(t, stop())
	})
	t.Run("the receiver owns what it got", func(t *testing.T) {
		src := s.New(t)
		up, stop := start(t, src)
		clear(receive(t, up))
		require.NoError(t, stop())
		up, stop = start(t, src)
		require.Equal(t, s.First, receive(t, up))
		require.NoError(t, stop())
	})
}
