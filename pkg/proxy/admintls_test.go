package proxy_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/tlsconf"
	"github.com/logd-io/logd/pkg/tlsconf/tlstest"
)

// The admin port shows the certificate that nodes are shown, not that of the listener.
func TestAdminSpeaksTLS(t *testing.T) {
	ca := tlstest.NewCA(t, "test")
	c := conf(t, ca, startNode(t, ca))
	c.Admin.TLS = true
	p := run(t, c)
	client := http.Client{Timeout: bound, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: ca.Source(t, tlsconf.RoleClient, "app").Client("", tlsconf.RoleProxy, "px"),
	}}
	res, err := client.Get("https://" + p.AdminAddr() + "/healthz")
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Equal(t, http.StatusOK, res.StatusCode)
}
