package agent_test

import (
	"crypto/tls"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/tlsconf"
)

// The admin port shows the node's own certificate.
func TestAdminSpeaksTLS(t *testing.T) {
	w := newWorld(t)
	c := w.config("n1", 1)
	c.Admin.TLS = true
	n := w.start(c)
	src, err := tlsconf.Load(w.files(tlsconf.RoleClient, "app"))
	require.NoError(t, err)
	client := http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: src.Client("", tlsconf.RoleStorage, "n1"),
	}}
	res, err := client.Get("https://" + n.AdminAddr() + "/healthz")
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Equal(t, http.StatusOK, res.StatusCode)
	require.EqualValues(t, tls.VersionTLS13, res.TLS.Version)
}
