// Package tlstest makes certificate authorities and certificates for tests, in
// directories that go with the test.
//
// Tests of every package that speaks TLS call it. It never makes anything but
// what package tlsconf makes, except through Sign, which is there for the
// certificates tlsconf would not make.
package tlstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/tlsconf"
)

// CA is a certificate authority of one cluster.
type CA struct {
	Cluster           string
	CertFile, KeyFile string
}

// NewCA makes a CA for the cluster.
func NewCA(t testing.TB, cluster string) *CA {
	t.Helper()
	dir := t.TempDir()
	ca := &CA{Cluster: cluster, CertFile: filepath.Join(dir, "ca.pem"), KeyFile: filepath.Join(dir, "ca-key.pem")}
	require.NoError(t, tlsconf.CreateCA(tlsconf.CAParams{Cluster: cluster, CertFile: ca.CertFile, KeyFile: ca.KeyFile}))
	return ca
}

// Files makes a certificate, also good for localhost and 127.0.0.1.
func (ca *CA) Files(t testing.TB, role tlsconf.Role, name string) tlsconf.Files {
	t.Helper()
	dir := t.TempDir()
	f := tlsconf.Files{CA: ca.CertFile, Cert: filepath.Join(dir, name+".pem"), Key: filepath.Join(dir, name+"-key.pem")}
	require.NoError(t, tlsconf.CreateCert(tlsconf.CertParams{
		CAFile: ca.CertFile, CAKeyFile: ca.KeyFile,
		Identity: tlsconf.Identity{Cluster: ca.Cluster, Role: role, Name: name},
		DNS:      []string{"localhost"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)},
		CertFile: f.Cert, KeyFile: f.Key,
	}))
	return f
}

// Source makes a certificate and loads it.
func (ca *CA) Source(t testing.TB, role tlsconf.Role, name string) *tlsconf.Source {
	t.Helper()
	s, err := tlsconf.Load(ca.Files(t, role, name))
	require.NoError(t, err)
	return s
}

// Sign signs any certificate with the CA's key: an expired one, one without a
// role URI, one that contradicts itself. A missing serial number and validity
// are filled in. The files are not checked by loading them.
func (ca *CA) Sign(t testing.TB, tmpl *x509.Certificate) tlsconf.Files {
	t.Helper()
	if tmpl.SerialNumber == nil {
		tmpl.SerialNumber = big.NewInt(time.Now().UnixNano())
	}
	if tmpl.NotAfter.IsZero() {
		tmpl.NotBefore, tmpl.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	}
	pair, err := tls.LoadX509KeyPair(ca.CertFile, ca.KeyFile)
	require.NoError(t, err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificate(rand.Reader, tmpl, pair.Leaf, &key.PublicKey, pair.PrivateKey)
	require.NoError(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	dir := t.TempDir()
	f := tlsconf.Files{CA: ca.CertFile, Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	write := func(path, kind string, der []byte) {
		require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	}
	write(f.Cert, "CERTIFICATE", der)
	write(f.Key, "PRIVATE KEY", keyDER)
	return f
}

// KeyPair loads certificate and key without any of tlsconf's checks.
func KeyPair(t testing.TB, f tlsconf.Files) tls.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	require.NoError(t, err)
	return pair
}
