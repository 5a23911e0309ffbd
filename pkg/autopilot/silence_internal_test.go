package autopilot

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

func TestWhoRefusesIsNotSilent(t *testing.T) {
	for name, tt := range map[string]struct {
		err    error
		silent bool
	}{
		"answers":          {nil, false},
		"nobody there":     {errors.New("dial: connection refused"), true},
		"no address":       {errors.New("dial: missing address"), true},
		"too late":         {context.DeadlineExceeded, true},
		"another answered": {errors.New("stats of n1.1: n1.2 answered"), true},
		"a policy forbids": {fmt.Errorf("stats of n1: %w: no rule", ErrRefused), false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSilence(func(context.Context, string) (Stats, error) { return Stats{}, tt.err })
				require.False(t, s.of(t.Context(), "n1"), "not before it was asked")
				synctest.Wait()
				require.Equal(t, tt.silent, s.of(t.Context(), "n1"))
				s.wait()
			})
		})
	}
}
