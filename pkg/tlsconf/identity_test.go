package tlsconf_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/tlsconf"
)

func certWith(t *testing.T, cn string, uris ...string) *x509.Certificate {
	t.Helper()
	c := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: cn}}
	for _, s := range uris {
		u, err := url.Parse(s)
		require.NoError(t, err)
		c.URIs = append(c.URIs, u)
	}
	return c
}

func TestIdentityOf(t *testing.T) {
	id := func(cluster string, role tlsconf.Role, name string) tlsconf.Identity {
		return tlsconf.Identity{Cluster: cluster, Role: role, Name: name}
	}
	for _, tc := range []struct {
		name   string
		cn     string
		uris   []string
		want   tlsconf.Identity
		refuse string // part of the error; empty: accepted
	}{
		{name: "uri alone", uris: []string{"spiffe://prod/storage/n1"}, want: id("prod", tlsconf.RoleStorage, "n1")},
		{name: "uri and the same cn", cn: "n1", uris: []string{"spiffe://prod/proxy/n1"}, want: id("prod", tlsconf.RoleProxy, "n1")},
		{name: "cn alone is a client", cn: "root", want: id("", tlsconf.RoleClient, "root")},
		{name: "another scheme does not count", cn: "root", uris: []string{"https://prod/storage/n1"}, want: id("", tlsconf.RoleClient, "root")},
		{name: "uri and a different cn", cn: "root", uris: []string{"spiffe://prod/client/n1"}, refuse: "different holders"},
		{name: "neither", refuse: "neither a role URI nor a CN"},
		{name: "two role uris", uris: []string{"spiffe://prod/client/a", "spiffe://prod/admin/a"}, refuse: "two role URIs"},
		{name: "a role uri in capitals beside one", uris: []string{"spiffe://prod/client/a", "SPIFFE://prod/admin/a"}, refuse: "two role URIs"},
		{name: "unknown role", uris: []string{"spiffe://prod/king/a"}, refuse: "storage, proxy, client, admin"},
		{name: "no name", uris: []string{"spiffe://prod/client"}, refuse: "name: empty"},
		{name: "no cluster", uris: []string{"spiffe:///client/a"}, refuse: "cluster: empty"},
		{name: "a foreign spiffe id", uris: []string{"spiffe://corp/ns/default/sa/web"}, refuse: "role \"ns\""},
		{name: "extra segment", uris: []string{"spiffe://prod/client/a/b"}, refuse: "a/b"},
		{name: "trailing slash", uris: []string{"spiffe://prod/client/a/"}, refuse: "a/"},
		{name: "double slash", uris: []string{"spiffe://prod//client/a"}, refuse: "role \"\""},
		{name: "port", uris: []string{"spiffe://prod:1/client/a"}, refuse: "cluster"},
		{name: "user", uris: []string{"spiffe://root@prod/client/a"}, refuse: "not of the form"},
		{name: "query", uris: []string{"spiffe://prod/client/a?x=1"}, refuse: "not of the form"},
		{name: "fragment", uris: []string{"spiffe://prod/client/a#x"}, refuse: "not of the form"},
		{name: "escape", uris: []string{"spiffe://prod/client/%61"}, refuse: "not of the form"},
		{name: "opaque", uris: []string{"spiffe:prod/client/a"}, refuse: "cluster: empty"},
		{name: "space", uris: []string{"spiffe://prod/client/a%20b"}, refuse: "letters, digits"},
		{name: "dot dot", uris: []string{"spiffe://prod/client/.."}, refuse: "letters, digits"},
		{name: "too long", uris: []string{"spiffe://prod/client/" + strings.Repeat("a", 101)}, refuse: "at most 100"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := tlsconf.IdentityOf(certWith(t, tc.cn, tc.uris...))
			if tc.refuse == "" {
				require.NoError(t, err)
				require.Equal(t, tc.want, got)
				return
			}
			var ie *tlsconf.IdentityError
			require.ErrorAs(t, err, &ie)
			require.ErrorContains(t, err, tc.refuse)
			require.Zero(t, got)
		})
	}
}

// Whatever is accepted from a URI is written back as exactly that URI: one
// identity has one spelling.
func FuzzIdentityOf(f *testing.F) {
	f.Add("spiffe://prod/storage/n1")
	f.Add("spiffe://prod/client/%61")
	f.Add("Spiffe://a/admin/b?c#d")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := url.Parse(s)
		if err != nil || !strings.EqualFold(u.Scheme, "spiffe") {
			return
		}
		id, err := tlsconf.IdentityOf(&x509.Certificate{SerialNumber: big.NewInt(7), URIs: []*url.URL{u}})
		if err != nil {
			return
		}
		require.NoError(t, id.Validate())
		require.Equal(t, u.String(), id.String())
	})
}
