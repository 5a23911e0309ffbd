package k8s_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	certv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"

	"github.com/logd-io/logd/config"
	"github.com/logd-io/logd/pkg/tlsconf"
)

const gossipKey = "pUqJrVyVRgsXsZHXPd3c1Y8i6cS2ZSRDKe0e6k7Zrmc=\n"

type secrets = map[string]map[string][]byte // by name and key

// usages are what cert-manager makes of the words in a Certificate.
var usages = map[certv1.KeyUsage]func(*x509.Certificate){
	certv1.UsageDigitalSignature: func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageDigitalSignature },
	certv1.UsageCertSign:         func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign },
	certv1.UsageCRLSign:          func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign },
	certv1.UsageServerAuth:       func(c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth) },
	certv1.UsageClientAuth:       func(c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth) },
}

// issue makes the Secret of a Certificate, as cert-manager does. Without an
// issuer the certificate signs itself.
func issue(t *testing.T, c *certv1.Certificate, ca *x509.Certificate, caKey *ecdsa.PrivateKey) (map[string][]byte, *x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	require.Equal(t, certv1.ECDSAKeyAlgorithm, c.Spec.PrivateKey.Algorithm)
	require.Equal(t, 256, c.Spec.PrivateKey.Size)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: c.Spec.CommonName}, DNSNames: c.Spec.DNSNames,
		NotBefore: time.Now(), NotAfter: time.Now().Add(c.Spec.Duration.Duration), IsCA: c.Spec.IsCA, BasicConstraintsValid: true,
	}
	for _, text := range c.Spec.URIs {
		u, err := url.Parse(text)
		require.NoError(t, err)
		template.URIs = append(template.URIs, u)
	}
	for _, u := range c.Spec.Usages {
		require.Contains(t, usages, u)
		usages[u](template)
	}
	if ca == nil {
		ca, caKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, &key.PublicKey, caKey)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	root := ca.Raw
	if root == nil {
		root = der
	}
	return map[string][]byte{
		"ca.crt":  pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root}),
		"tls.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		"tls.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	}, leaf, key
}

// issuedSecrets are those that cert-manager makes of a rendering's Certificates,
// whose issuers it follows.
func issuedSecrets(t *testing.T, r rendering) secrets {
	t.Helper()
	all := secrets{}
	certs := of[*certv1.Certificate](r)
	issuers := map[string]*certv1.Issuer{}
	for _, i := range of[*certv1.Issuer](r) {
		issuers[i.Name] = i
	}
	var ca *x509.Certificate
	var caKey *ecdsa.PrivateKey
	if i := slices.IndexFunc(certs, func(c *certv1.Certificate) bool { return c.Spec.IsCA }); i >= 0 {
		c := certs[i]
		require.NotNil(t, issuers[c.Spec.IssuerRef.Name].Spec.SelfSigned)
		all[c.Spec.SecretName], ca, caKey = issue(t, c, nil, nil)
		certs = slices.Delete(slices.Clone(certs), i, i+1)
	} else { // another's
		_, ca, caKey = issue(t, &certv1.Certificate{Spec: certv1.CertificateSpec{
			CommonName: "company", IsCA: true, Duration: certs[0].Spec.Duration, PrivateKey: certs[0].Spec.PrivateKey,
			Usages: []certv1.KeyUsage{certv1.UsageCertSign},
		}}, nil, nil)
	}
	for _, c := range certs {
		if i := issuers[c.Spec.IssuerRef.Name]; i != nil {
			require.Equal(t, "Issuer", c.Spec.IssuerRef.Kind)
			require.Contains(t, all, i.Spec.CA.SecretName, "the issuer's CA")
		} else {
			require.Equal(t, "company", c.Spec.IssuerRef.Name)
		}
		require.Less(t, c.Spec.RenewBefore.Duration, c.Spec.Duration.Duration)
		require.NotContains(t, all, c.Spec.SecretName)
		all[c.Spec.SecretName], _, _ = issue(t, c, ca, caKey)
	}
	return all
}

// madeSecrets are those that an operator makes, with our own commands, and that
// the comments in the files ask for.
func madeSecrets(t *testing.T, r rendering) secrets {
	t.Helper()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	require.NoError(t, tlsconf.CreateCA(tlsconf.CAParams{Cluster: "k8s", CertFile: at("ca.pem"), KeyFile: at("ca-key.pem")}))
	read := func(name string) []byte {
		text, err := os.ReadFile(at(name))
		require.NoError(t, err)
		return text
	}
	cert := func(role tlsconf.Role, name string, dns ...string) {
		require.NoError(t, tlsconf.CreateCert(tlsconf.CertParams{
			CAFile: at("ca.pem"), CAKeyFile: at("ca-key.pem"), Identity: tlsconf.Identity{Role: role, Name: name}, DNS: dns,
			CertFile: at(name + ".pem"), KeyFile: at(name + "-key.pem"),
		}))
	}
	nodes := map[string][]byte{"ca.pem": read("ca.pem")}
	for _, s := range of[*appsv1.StatefulSet](r) {
		for i := range *s.Spec.Replicas {
			name := fmt.Sprintf("%s-%d", s.Name, i)
			cert(tlsconf.RoleStorage, name, name+"."+s.Spec.ServiceName+"."+namespaceOf(r, s)+".svc")
			nodes[name+".pem"], nodes[name+"-key.pem"] = read(name+".pem"), read(name+"-key.pem")
		}
	}
	home := r.namespace
	if sets := of[*appsv1.StatefulSet](r); len(sets) > 0 {
		home = namespaceOf(r, sets[0])
	}
	cert(tlsconf.RoleProxy, "gateway", "logd-gateway."+home+".svc")
	return secrets{
		"logd-tls":         nodes,
		"logd-gateway-tls": {"ca.crt": read("ca.pem"), "tls.crt": read("gateway.pem"), "tls.key": read("gateway-key.pem")},
		"logproxy":         {"gossip.key": []byte(gossipKey), "ca.pem": read("ca.pem"), "tls.pem": read("gateway.pem"), "tls-key.pem": read("gateway-key.pem")},
	}
}

// The programs take the certificates and keys that are mounted, with the modes
// they are mounted with; a node's names it as its configuration does, and holds
// the name that it advertises.
func TestCertificatesAreThoseThatTheProgramsTake(t *testing.T) {
	// What it may be used for, and for nothing else: both ends of a connection.
	serves := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	issued := 0
	for _, r := range renderings(t) {
		all := madeSecrets(t, r)
		if len(of[*certv1.Certificate](r)) > 0 {
			issued++
			all = issuedSecrets(t, r)
		}
		all["logd-gossip"] = map[string][]byte{"gossip.key": []byte(gossipKey)}
		for _, p := range pods(r) {
			t.Run(r.name+"/"+p.name, func(t *testing.T) {
				c := p.agent(t)
				root := t.TempDir()
				files := p.files(t, c, all)
				for path, f := range files {
					require.Zero(t, f.mode&0o002, path)
				}
				write(t, root, files, bytes.Clone)
				at := func(tls config.TLS) tlsconf.Files {
					return tlsconf.Files{CA: root + tls.CAFile, Cert: root + tls.CertFile, Key: root + tls.KeyFile}
				}
				s := p.load(t, c)
				if n := s.node; n != nil {
					source, err := tlsconf.Load(at(n.TLS))
					require.NoError(t, err)
					require.Equal(t, tlsconf.Identity{Cluster: n.Cluster, Role: tlsconf.RoleStorage, Name: p.name}, source.Identity())
					leaf, _ := source.Certificates()
					require.ElementsMatch(t, serves, leaf.ExtKeyUsage)
					require.NoError(t, leaf.VerifyHostname(n.AdvertiseAddr))
					n.GossipKeyFile = root + n.GossipKeyFile
					_, err = n.GossipKeys()
					require.NoError(t, err)
					return
				}
				source, err := tlsconf.Load(at(s.proxy.Upstream.TLS))
				require.NoError(t, err)
				require.Equal(t, tlsconf.RoleProxy, source.Identity().Role)
				require.Equal(t, s.proxy.Cluster, source.Identity().Cluster)
				leaf, _ := source.Certificates()
				require.ElementsMatch(t, serves, leaf.ExtKeyUsage)
				if s.proxy.UsesGossip() {
					s.proxy.Gossip.KeyFile = root + s.proxy.Gossip.KeyFile
					_, err = s.proxy.GossipKeys()
					require.NoError(t, err)
				}
				if !s.proxy.Listener.TLS.IsZero() {
					source, err := tlsconf.Load(at(s.proxy.Listener.TLS))
					require.NoError(t, err)
					leaf, _ := source.Certificates()
					release := "logd-gateway"
					if r.name == "helm, another release" {
						release = "orders-logd-gateway"
					}
					require.NoError(t, leaf.VerifyHostname(release+"."+p.namespace+".svc"))
				}
			})
		}
	}
	require.GreaterOrEqual(t, issued, 4)
}

// A CA that is made anew keeps its key, whatever cert-manager's default is: nodes get
// ca.crt one after the other, and each must believe the others meanwhile. Other keys
// last no longer than their certificates.
func TestTheCAKeepsItsKey(t *testing.T) {
	found := 0
	for _, r := range renderings(t) {
		for _, c := range of[*certv1.Certificate](r) {
			want := certv1.RotationPolicyAlways
			if c.Spec.IsCA {
				want = certv1.RotationPolicyNever
				found++
			}
			require.Equal(t, want, c.Spec.PrivateKey.RotationPolicy, "%s: %s", r.name, c.Name)
		}
	}
	require.GreaterOrEqual(t, found, 2)
}
