package config_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/config"
)

// A setting that is true or false can be given in a file and in the environment, and
// one that has no default can be left alone.
func TestTrueAndFalse(t *testing.T) {
	load := func(text string, environ ...string) (config.Proxy, error) {
		return config.LoadProxy(config.From{
			Paths: []string{write(t, t.TempDir(), "p.hcl", `
gossip {
  key        = "`+testKey+`"
  retry_join = ["127.0.0.1:8401"]
}
upstream {
  tls {
    ca_file   = "ca.pem"
    cert_file = "proxy.pem"
    key_file  = "proxy.key"
  }
}
`+text)}, Environ: environ,
		})
	}
	c, err := load("")
	require.NoError(t, err)
	require.Nil(t, c.Admin.Tail)
	require.False(t, c.Admin.PProf)
	require.True(t, c.ShowsTail())

	c, err = load("admin {\n  tail  = false\n  pprof = true\n}\n")
	require.NoError(t, err)
	require.False(t, *c.Admin.Tail)
	require.True(t, c.Admin.PProf)
	require.False(t, c.ShowsTail())

	c, err = load("admin {\n  tail = false\n}\n", "LOGPROXY_ADMIN_TAIL=true", "LOGPROXY_ADMIN_PPROF=false")
	require.NoError(t, err)
	require.True(t, *c.Admin.Tail)
	require.False(t, c.Admin.PProf)

	for _, wrong := range []string{`"perhaps"`, "1", "[true]"} {
		_, err = load("admin {\n  tail = " + wrong + "\n}\n")
		require.ErrorContains(t, err, "neither true nor false", wrong)
		_, err = load("admin {\n  pprof = " + wrong + "\n}\n")
		require.ErrorContains(t, err, "neither true nor false", wrong)
	}
}
