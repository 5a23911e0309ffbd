package config_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/config"
)

func TestTyposInTheEnvironment(t *testing.T) {
	require.Equal(t, []config.Typo{
		{Name: "LOGD_LOG_LEVEI", Meant: "LOGD_LOG_LEVEL"},
		{Name: "LOGD_GOSSIP_KEY_FLE", Meant: "LOGD_GOSSIP_KEY_FILE"},
		{Name: "LOGD_PORT_RPC", Meant: "LOGD_PORTS_RPC"},
		{Name: "LOGD_ADMIN_ADR", Meant: "LOGD_ADMIN_ADDR"},
		{Name: "LOGD_CACERTS", Meant: "LOGD_CACERT"},
		{Name: "LOGD_ADMIN_ADDRESS", Meant: "LOGD_ADMIN_ADDR"},
		{Name: "LOGD_ADDRESS", Meant: "LOGD_ADDR"},
	}, config.NodeTypos([]string{
		"LOGD_LOG_LEVEI=debug", "LOGD_GOSSIP_KEY_FLE=/k", "LOGD_PORT_RPC=1", "LOGD_ADMIN_ADR=a:1", "LOGD_CACERTS=/ca", "LOGD_ADMIN_ADDRESS=a:1", "LOGD_ADDRESS=a:1", "LOGD_LOG_LEVEL=debug", "LOGD_NAMEE=", "LOGPROXY_LOG_LEVEI=debug", "PATH=/bin",
	}))
	require.Equal(t, []config.Typo{{Name: "LOGPROXY_ADMIN_ADDR", Meant: "LOGPROXY_ADMIN_ADDRESS"}},
		config.ProxyTypos([]string{"LOGPROXY_ADMIN_ADDR=a:1", "LOGPROXY_ADMIN_ADDRESS=a:1"}))
	require.Equal(t, []config.Typo{{Name: "LOGPROXY_LISTNER_ADDRESS", Meant: "LOGPROXY_LISTENER_ADDRESS"}},
		config.ProxyTypos([]string{"LOGPROXY_LISTNER_ADDRESS=127.0.0.1:1", "LOGPROXY_DRAIN_DELAY=1s", "LOGD_LOG_LEVEI=debug"}))
	require.Equal(t, "LOGD_LOG_LEVEI in the environment is no setting. Did you mean LOGD_LOG_LEVEL?",
		config.NodeTypos([]string{"LOGD_LOG_LEVEI=debug"})[0].String())
}

// Kubernetes and our own commands have such variables, too.
func TestVariablesOfOthersAreNoTypos(t *testing.T) {
	require.Empty(t, config.NodeTypos([]string{
		"LOGD_ADDR=a:1", "LOGD_CACERT=a", "LOGD_CERT=a", "LOGD_KEY=a", "LOGD_ADMIN_ADDR=a:1",
		"LOGD_SERVICE_HOST=10.0.0.1", "LOGD_SERVICE_PORT=8400", "LOGD_SERVICE_PORT_RPC=8400", "LOGD_SERVICE_PORT_GOSSIP=8401",
		"LOGD_PORT=tcp://10.0.0.1:8400", "LOGD_PORT_8400_TCP=tcp://10.0.0.1:8400", "LOGD_PORT_8400_TCP_ADDR=10.0.0.1",
		"LOGD_PORT_8400_TCP_PORT=8400", "LOGD_PORT_8400_TCP_PROTO=tcp", "LOGD_GATEWAY_SERVICE_HOST=10.0.0.2",
	}))
	require.Empty(t, config.ProxyTypos([]string{"LOGPROXY_SERVICE_HOST=10.0.0.1", "LOGPROXY_PORT=tcp://10.0.0.1:8410", "LOGPROXY_PORT_8410_TCP=x"}))
}
