package agent

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A disk that hangs holds a part of the node for ever, and the process ends all
// the same.
func TestAFatalFaultDoesNotWaitForWhatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fault := errors.New("the disk hangs")
		hangs := make(chan struct{})
		fatal := make(chan error, 1)
		fatal <- fault
		begin := time.Now()
		require.ErrorIs(t, waitAll(func() error { <-hangs; return nil }, fatal), fault)
		require.Equal(t, fatalWait, time.Since(begin))
		close(hangs)

		fatal <- fault
		require.ErrorIs(t, waitAll(func() error { time.Sleep(time.Second); return fault }, fatal), fault)
		require.NoError(t, waitAll(func() error { time.Sleep(time.Minute); return nil }, nil))
	})
}
