package testutil_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/internal/testutil"
)

func TestMain(m *testing.M) { testutil.VerifyMain(m) }

func TestEventuallyLooksUntilItIsTrue(t *testing.T) {
	looks := 0
	testutil.Eventually(t, time.Minute, func() error {
		if looks++; looks < 3 {
			return errors.New("not yet")
		}
		return nil
	})
	require.Equal(t, 3, looks)
}

func TestEventuallyOnLooksAtEachChange(t *testing.T) {
	var mu sync.Mutex
	value, changed := 0, make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 5 {
			mu.Lock()
			value++
			close(changed)
			changed = make(chan struct{})
			mu.Unlock()
		}
	}()
	testutil.EventuallyOn(t, time.Minute,
		func() <-chan struct{} { mu.Lock(); defer mu.Unlock(); return changed },
		func() error {
			mu.Lock()
			defer mu.Unlock()
			if value < 5 {
				return errors.New("not yet")
			}
			return nil
		})
	<-done
}

// fatal records a Fatalf and ends the goroutine, as testing.T does.
type fatal struct {
	testing.TB
	message string
}

func (f *fatal) Helper() {}
func (f *fatal) Fatalf(format string, args ...any) {
	f.message = format
	_ = args
}

func TestEventuallyFailsAtItsBound(t *testing.T) {
	f := &fatal{TB: t}
	testutil.Eventually(f, 20*time.Millisecond, func() error { return errors.New("never") })
	require.NotEmpty(t, f.message)
}
