package testutil

import (
	"context"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// VerifyMain runs a package's tests and fails if a goroutine outlives them.
//
//	func TestMain(m *testing.M) { testutil.VerifyMain(m) }
func VerifyMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// The signal package keeps these for the life of a process.
		goleak.IgnoreTopFunction("os/signal.signal_recv"),
		goleak.IgnoreTopFunction("os/signal.loop"),
		// memberlist's Shutdown does not wait for a probe that is under way. It ends
		// by itself, with its interval of at most two seconds.
		goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"),
	)
}

// pace is how often a condition is looked at, where there is no event to wait on.
const pace = 5 * time.Millisecond

// Eventually waits until check returns nil, and fails the test with its last
// error when that takes longer than the bound. The bound is for a machine that
// hangs, not a claim about speed: make it generous. check runs on the caller's
// goroutine.
func Eventually(t testing.TB, bound time.Duration, check func() error) {
	t.Helper()
	if err := wait(t.Context(), bound, nil, check); err != nil {
		t.Fatalf("not within %v: %v", bound, err)
	}
}

// EventuallyOn is Eventually for state that announces its changes: it looks
// again when the channel that changes returned before the look is closed.
func EventuallyOn(t testing.TB, bound time.Duration, changes func() <-chan struct{}, check func() error) {
	t.Helper()
	if err := wait(t.Context(), bound, changes, check); err != nil {
		t.Fatalf("not within %v: %v", bound, err)
	}
}

func wait(ctx context.Context, bound time.Duration, changes func() <-chan struct{}, check func() error) error {
	deadline := time.NewTimer(bound)
	defer deadline.Stop()
	var tick <-chan time.Time
	if changes == nil {
		ticker := time.NewTicker(pace)
		defer ticker.Stop()
		tick = ticker.C
	}
	for {
		var changed <-chan struct{}
		if changes != nil {
			changed = changes()
		}
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-changed:
		case <-tick:
		case <-deadline.C:
			return err
		case <-ctx.Done():
			return err
		}
	}
}

// Context is the test's context with a bound, for calls that would otherwise
// hang a broken test until the whole run times out.
func Context(t testing.TB, bound time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	t.Cleanup(cancel)
	return ctx
}
