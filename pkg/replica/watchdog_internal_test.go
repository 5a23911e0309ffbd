package replica

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/vfs"
)

func TestWatchdog(t *testing.T) {
	const limit = 3 * time.Second
	op := func(id uint64) vfs.Op { return vfs.Op{ID: id, What: "sync", Path: "x"} }

	t.Run("a write that hangs", func(t *testing.T) {
		w := watchdog{limit: limit}
		for range 4 {
			require.NoError(t, w.look(op(7)))
		}
		require.ErrorContains(t, w.look(op(7)), "sync x has not returned for 4s")
	})
	t.Run("a process that was stopped during a write", func(t *testing.T) {
		w := watchdog{limit: limit}
		require.NoError(t, w.look(op(7)))
		require.NoError(t, w.look(vfs.Op{}))
	})
	t.Run("many slow writes", func(t *testing.T) {
		w := watchdog{limit: limit}
		for i := range uint64(20) {
			for range 4 {
				require.NoError(t, w.look(op(i+1)))
			}
		}
	})
}
