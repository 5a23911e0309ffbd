package tlsconf_test

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/tlsconf"
	"github.com/logd-io/logd/pkg/tlsconf/tlstest"
)

func TestForeign(t *testing.T) {
	ca, other := tlstest.NewCA(t, "prod"), tlstest.NewCA(t, "elsewhere")
	good := ca.Files(t, tlsconf.RoleClient, "c")
	roots, cert, err := tlsconf.Foreign(good)
	require.NoError(t, err)
	require.NotNil(t, roots)
	require.NotEmpty(t, cert.Certificate)

	mixed := good
	mixed.CA = other.Files(t, tlsconf.RoleClient, "c").CA
	_, _, err = tlsconf.Foreign(mixed)
	require.NoError(t, err, "the service's certificate may be another CA's than ours")

	nameless := ca.Sign(t, &x509.Certificate{})
	_, _, err = tlsconf.Foreign(nameless)
	require.NoError(t, err, "who it names is not our affair")

	expired := ca.Sign(t, &x509.Certificate{NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)})
	_, _, err = tlsconf.Foreign(expired)
	require.ErrorContains(t, err, expired.Cert)
	require.ErrorContains(t, err, "has expired at")

	early := ca.Sign(t, &x509.Certificate{NotBefore: time.Now().Add(time.Hour), NotAfter: time.Now().Add(2 * time.Hour)})
	_, _, err = tlsconf.Foreign(early)
	require.ErrorContains(t, err, "not valid before")

	open := ca.Files(t, tlsconf.RoleClient, "d")
	require.NoError(t, os.Chmod(open.Key, 0o644))
	open.CA = open.Key
	_, _, err = tlsconf.Foreign(open)
	require.ErrorContains(t, err, "0644")
	require.ErrorContains(t, err, "no CA certificate", "everything that is wrong is said")
	var file *tlsconf.FileError
	require.ErrorAs(t, err, &file)
}

func TestSecret(t *testing.T) {
	path := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(path, []byte("p"), 0o600))
	for mode, fine := range map[os.FileMode]bool{0o600: true, 0o640: true, 0o660: false, 0o644: false, 0o666: false} {
		require.NoError(t, os.Chmod(path, mode))
		text, err := tlsconf.Secret("password file", path)
		if fine {
			require.NoError(t, err, mode)
			require.Equal(t, "p", string(text))
			continue
		}
		var file *tlsconf.FileError
		require.ErrorAs(t, err, &file, mode)
		require.ErrorContains(t, err, "password file has mode")
	}
}
