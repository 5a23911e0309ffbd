package cli

import (
	"context"
	"fmt"
	"net"
	"time"
)

// How often a name that has no address is looked up again, and how often it is said
// that this is what is waited for.
const (
	lookMin = 250 * time.Millisecond
	lookMax = 5 * time.Second
	sayMax  = 5 * time.Minute
)

// Looker finds a host's addresses; [net.Resolver] is one.
type Looker interface {
	LookupHost(ctx context.Context, host string) ([]string, error)
}

// AwaitHost waits until host, which a setting names, has an address. A name is often
// published a while after the process is started that it is for. Why it waits is given
// to say, and to the service manager: at once, when that changes, and now and then. Its
// error is that ctx ended.
func AwaitHost(ctx context.Context, env Env, with Looker, setting, host string, say func(msg string, args ...any)) error {
	if host == "" || net.ParseIP(host) != nil {
		return nil
	}
	var opened func()
	pause, quiet := lookMin, 10*time.Second
	var told string
	var toldAt time.Time
	for {
		_, err := with.LookupHost(ctx, host)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s %q: %w", setting, host, context.Cause(ctx))
		}
		if opened == nil {
			opened = Opening(env, "waiting for an address of "+host)
			defer opened()
		}
		switch now := time.Now(); {
		case err.Error() == told && now.Sub(toldAt) < quiet:
		default:
			if err.Error() == told {
				quiet = min(2*quiet, sayMax)
			}
			told, toldAt = err.Error(), now
			say("not started yet: a name has no address; looking again", "setting", setting, "name", host, "err", err)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
		pause = min(2*pause, lookMax)
	}
}
