package config_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/config"
)

func TestChanged(t *testing.T) {
	was := config.DefaultNode()
	next := was
	next.RetryJoin = []string{}
	live, restart := was.Changed(next)
	require.Empty(t, append(live, restart...), "no list is an empty one")

	next.LogLevel, next.Retain.Age = "debug", time.Hour
	next.Autopilot.MinQuorum, next.Ports.RPC, next.RetryJoin, next.TLS.CAFile = 5, 1, []string{"a:1"}, "other.pem"
	live, restart = was.Changed(next)
	require.Equal(t, []string{"log_level", "retain.age"}, live)
	require.Equal(t, []string{"autopilot.min_quorum", "ports.rpc", "retry_join", "tls.ca_file"}, restart)

	p := config.DefaultProxy()
	other := p
	other.Discovery = []config.Discovery{{Kind: "static", Nodes: []string{"a:1"}}}
	other.LogLevel = "trace"
	live, restart = p.Changed(other)
	require.Equal(t, []string{"log_level"}, live)
	require.Equal(t, []string{"discovery"}, restart)
}
