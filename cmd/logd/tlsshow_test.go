package main

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/internal/cli"
	"github.com/logd-io/logd/pkg/tlsconf"
	"github.com/logd-io/logd/pkg/tlsconf/tlstest"
)

func TestTLSShow(t *testing.T) {
	ca, other := tlstest.NewCA(t, "prod"), tlstest.NewCA(t, "test")
	node := ca.Files(t, tlsconf.RoleStorage, "n1")
	uri := func(s string) []*url.URL {
		u, err := url.Parse(s)
		require.NoError(t, err)
		return []*url.URL{u}
	}
	for name, tc := range map[string]struct {
		file, ca string
		says     []string
		wrong    bool
	}{
		"a node's": {file: node.Cert, ca: ca.CertFile, says: []string{
			"Role: storage\n", "Name: n1\n", "Cluster: prod\n", "(364 days left)", "speak Raft", "Peers: take it\n",
		}},
		"without a CA to hold it against": {file: node.Cert, says: []string{"Peers: take it, if they have its CA"}},
		"a client's":                      {file: ca.Files(t, tlsconf.RoleClient, "web").Cert, ca: ca.CertFile, says: []string{"Role: client\n", "a proxy's listener with TLS"}},
		"a CA":                            {file: ca.CertFile, ca: ca.CertFile, says: []string{"==> CA ", "Cluster: prod\n", "vouch for certificates"}},
		"of another CA":                   {file: node.Cert, ca: other.CertFile, wrong: true, says: []string{"REFUSED: no CA given vouches for it", "unknown authority"}},
		"expired": {wrong: true, says: []string{"REFUSED: it expired at"}, ca: ca.CertFile, file: ca.Sign(t, &x509.Certificate{
			URIs: uri("spiffe://prod/client/c"), NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour),
		}).Cert},
		"not yet": {wrong: true, says: []string{"REFUSED: it is not valid before"}, file: ca.Sign(t, &x509.Certificate{
			URIs: uri("spiffe://prod/client/c"), NotBefore: time.Now().Add(time.Hour), NotAfter: time.Now().Add(2 * time.Hour),
		}).Cert},
		"no identity": {wrong: true, says: []string{"neither a role URI nor a CN"}, file: ca.Sign(t, &x509.Certificate{}).Cert},
		"a node's for clients only": {wrong: true, says: []string{"not for servers"}, file: ca.Sign(t, &x509.Certificate{
			URIs: uri("spiffe://prod/storage/n"), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		}).Cert},
		"a proxy's for servers only": {wrong: true, says: []string{"not for clients"}, file: ca.Sign(t, &x509.Certificate{
			URIs: uri("spiffe://prod/proxy/p"), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}).Cert},
		"another cluster than its CA": {wrong: true, ca: ca.CertFile, says: []string{`of cluster "test", and its CA of cluster "prod"`},
			file: ca.Sign(t, &x509.Certificate{URIs: uri("spiffe://test/proxy/p")}).Cert},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			err := tlsShow(&out, tc.file, tc.ca, cli.Table)
			if tc.wrong {
				require.ErrorIs(t, err, cli.ErrReported)
			} else {
				require.NoError(t, err)
				require.NotContains(t, out.String(), "REFUSED")
			}
			for _, part := range tc.says {
				require.Contains(t, out.String(), part)
			}
			out.Reset()
			require.Equal(t, tc.wrong, tlsShow(&out, tc.file, tc.ca, cli.JSON) != nil)
			var shown []shownCert
			require.NoError(t, json.Unmarshal(out.Bytes(), &shown))
			require.Len(t, shown, 1)
			require.Equal(t, tc.wrong, len(shown[0].Problems) > 0)
		})
	}
	require.ErrorContains(t, tlsShow(new(bytes.Buffer), node.Key, "", cli.Table), "no certificate")
}
