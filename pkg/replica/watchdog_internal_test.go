package replica

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestWatchdog(t *testing.T) {
	const limit = 3 * time.Second
	long := time.Now().Add(-time.Hour) // what a write looks like after a machine slept

	t.Run("a write that hangs", func(t *testing.T) {
		w := watchdog{limit: limit}
		for range 4 {
			require.NoError(t, w.look(long))
		}
		require.Error(t, w.look(long))
	})
	t.Run("a process that was stopped during a write", func(t *testing.T) {
		w := watchdog{limit: limit}
		require.NoError(t, w.look(long))
		require.NoError(t, w.look(time.Time{}))
	})
	t.Run("many slow writes", func(t *testing.T) {
		w := watchdog{limit: limit}
		for i := range 20 {
			since := long.Add(time.Duration(i) * time.Minute)
			for range 4 {
				require.NoError(t, w.look(since))
			}
		}
	})
}
