package cli_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/internal/cli"
)

// names has a host after a while.
type names struct {
	from time.Time
	why  func() error
}

func (n names) LookupHost(ctx context.Context, _ string) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if time.Now().Before(n.from) {
		return nil, n.why()
	}
	return []string{"127.0.0.1"}, nil
}

// A name that comes late is waited for, and why is said at a pace that a log bears.
func TestAwaitHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		why := &net.DNSError{Err: "no such host", Name: "node1.example", IsNotFound: true}
		var said []time.Duration
		start := time.Now()
		say := func(_ string, args ...any) {
			require.Contains(t, args, "node1.example")
			said = append(said, time.Since(start))
		}
		require.NoError(t, cli.AwaitHost(t.Context(), cli.Env{}, names{start.Add(4 * time.Hour), func() error { return why }}, "advertise_addr", "node1.example", say))
		require.Less(t, time.Since(start), 4*time.Hour+time.Minute)
		require.Zero(t, said[0])
		require.Greater(t, len(said), 20)
		require.Less(t, len(said), 4*12+10)
	})
}

func TestAwaitHostEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errors.New("told to stop"))
		defer cancel()
		never := names{time.Now().Add(time.Hour), func() error { return errors.New("no such host") }}
		err := cli.AwaitHost(ctx, cli.Env{}, never, "advertise_addr", "node1.example", func(string, ...any) {})
		require.ErrorContains(t, err, `advertise_addr "node1.example": told to stop`)
		for _, host := range []string{"", "10.0.0.1", "::1"} {
			require.NoError(t, cli.AwaitHost(t.Context(), cli.Env{}, never, "advertise_addr", host, nil))
		}
	})
}

// The service manager gives time for a name that is waited for, and hears nothing of
// one that is there.
func TestAwaitHostTellsTheServiceManager(t *testing.T) {
	m := newManager(t, filepath.Join(t.TempDir(), "notify"))
	quiet := func(string, ...any) {}
	why := func() error { return errors.New("no such host") }
	for _, host := range []string{"", "10.0.0.1", "node0.example"} {
		require.NoError(t, cli.AwaitHost(t.Context(), m.env(), names{why: why}, "advertise_addr", host, quiet))
	}
	late := names{time.Now().Add(time.Second), why}
	require.NoError(t, cli.AwaitHost(t.Context(), m.env(), late, "advertise_addr", "node1.example", quiet))
	said := m.next()
	require.Equal(t, "waiting for an address of node1.example", said["STATUS"])
	require.NotEmpty(t, said["EXTEND_TIMEOUT_USEC"])
}
