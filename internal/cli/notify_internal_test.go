package cli

import (
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A start that takes minutes is extended as long as it takes, and not one moment
// more. Internal: no socket goes by the fake clock.
func TestOpeningIsExtended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var said []string
		n := &notifier{stderr: io.Discard, write: func(message string) error {
			mu.Lock()
			defer mu.Unlock()
			said = append(said, message)
			return nil
		}}
		opened := n.opening("reading the log")
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		opened()
		require.Len(t, said, 61)
		for _, message := range said {
			require.Equal(t, "STATUS=reading the log\nEXTEND_TIMEOUT_USEC=30000000", message)
		}
		time.Sleep(time.Hour)
		require.Len(t, said, 61)
	})
}
