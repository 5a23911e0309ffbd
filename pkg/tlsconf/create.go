package tlsconf

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// How long certificates live when nothing is said, and how far back they begin,
// for peers whose clocks are behind.
const (
	DefaultCAValidity   = 10 * 365 * 24 * time.Hour
	DefaultCertValidity = 365 * 24 * time.Hour
	backdate            = 24 * time.Hour
)

// CAParams says what CreateCA makes.
type CAParams struct {
	Cluster           string        // the only cluster it issues for
	CertFile, KeyFile string        // written; the key with mode 0600
	ValidFor          time.Duration // 0: DefaultCAValidity
	Force             bool          // replace existing files
}

// CertParams says what CreateCert makes.
type CertParams struct {
	CAFile, CAKeyFile string   // read
	Identity          Identity // an empty Cluster is the CA's
	DNS               []string
	IPs               []net.IP
	CertFile, KeyFile string        // written; the key with mode 0600
	ValidFor          time.Duration // 0: DefaultCertValidity
	Force             bool          // replace existing files
}

// CreateCA makes a cluster's certificate authority (ECDSA P-256). Without Force
// an existing file is an error that is fs.ErrExist, and nothing is written.
func CreateCA(p CAParams) error {
	if err := checkWord("cluster", p.Cluster); err != nil {
		return fmt.Errorf("create CA: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("create CA: %w", err)
	}
	tmpl, err := template(p.ValidFor, DefaultCAValidity)
	if err != nil {
		return fmt.Errorf("create CA: %w", err)
	}
	tmpl.Subject = pkix.Name{CommonName: "logd CA " + p.Cluster}
	// The trust domain, from which CreateCert learns the cluster.
	tmpl.URIs = []*url.URL{{Scheme: scheme, Host: p.Cluster}}
	tmpl.IsCA = true
	tmpl.MaxPathLenZero = true
	tmpl.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	if err := issue(tmpl, tmpl, key, key, p.CertFile, p.KeyFile, p.Force); err != nil {
		return fmt.Errorf("create CA: %w", err)
	}
	return nil
}

// CreateCert makes a certificate for the identity, signed by the CA. Only roles
// that serve get one that is good for serving. Without Force an existing file is
// an error that is fs.ErrExist, and nothing is written.
func CreateCert(p CertParams) error {
	if err := createCert(p); err != nil {
		return fmt.Errorf("create certificate: %w", err)
	}
	return nil
}

func createCert(p CertParams) error {
	ca, caKey, err := loadCA(p.CAFile, p.CAKeyFile)
	if err != nil {
		return err
	}
	cluster := clusterOf(ca)
	if p.Identity.Cluster == "" {
		p.Identity.Cluster = cluster
	}
	if cluster != "" && p.Identity.Cluster != cluster {
		return fmt.Errorf("%s is the CA of cluster %q, not %q", p.CAFile, cluster, p.Identity.Cluster)
	}
	if err := p.Identity.Validate(); err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	tmpl, err := template(p.ValidFor, DefaultCertValidity)
	if err != nil {
		return err
	}
	if tmpl.NotAfter.After(ca.NotAfter) {
		tmpl.NotAfter = ca.NotAfter
	}
	if !tmpl.NotAfter.After(time.Now()) {
		return &FileError{p.CAFile, fmt.Errorf("the CA expired at %s", ca.NotAfter.Format(time.RFC3339))}
	}
	// X.520 ends a common name at 64 characters, and other libraries hold to it.
	if len(p.Identity.Name) <= 64 {
		tmpl.Subject = pkix.Name{CommonName: p.Identity.Name}
	}
	tmpl.URIs = []*url.URL{p.Identity.URI()}
	tmpl.DNSNames = p.DNS
	tmpl.IPAddresses = p.IPs
	tmpl.KeyUsage = x509.KeyUsageDigitalSignature
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if p.Identity.Role.serves() {
		tmpl.ExtKeyUsage = append(tmpl.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	return issue(tmpl, ca, key, caKey, p.CertFile, p.KeyFile, p.Force)
}

// clusterOf returns the cluster a CA of ours was made for, "" for another's CA.
func clusterOf(ca *x509.Certificate) string {
	for _, u := range ca.URIs {
		if u.Scheme == scheme && u.Path == "" {
			return u.Host
		}
	}
	return ""
}

func template(validFor, otherwise time.Duration) (*x509.Certificate, error) {
	if validFor < 0 {
		return nil, fmt.Errorf("validity %v: negative", validFor)
	}
	if validFor == 0 {
		validFor = otherwise
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber:          serial,
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(validFor),
		BasicConstraintsValid: true,
	}, nil
}

func loadCA(certFile, keyFile string) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	certPEM, bad := readFile("CA file", certFile)
	if bad != nil {
		return nil, nil, bad
	}
	keyPEM, bad := readKey(keyFile)
	if bad != nil {
		return nil, nil, bad
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, nil, &FileError{certFile, fmt.Errorf("with key file %s: %w", keyFile, err)}
	}
	if !pair.Leaf.IsCA {
		return nil, nil, &FileError{certFile, fmt.Errorf("certificate %q is not a CA's", subjectOf(pair.Leaf))}
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, nil, &FileError{keyFile, errors.New("not an ECDSA key")}
	}
	return pair.Leaf, key, nil
}

// issue signs tmpl and writes key and certificate, the key first: a certificate
// without its key is the more confusing leftover.
func issue(tmpl, parent *x509.Certificate, key, signer *ecdsa.PrivateKey, certFile, keyFile string, force bool) error {
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if !force {
		for _, path := range []string{certFile, keyFile} {
			if _, err := os.Lstat(path); err == nil {
				return &FileError{path, fmt.Errorf("%w; it is kept", fs.ErrExist)}
			}
		}
	}
	if err := writePEM(keyFile, 0o600, "PRIVATE KEY", keyDER, force); err != nil {
		return err
	}
	if err := writePEM(certFile, 0o644, "CERTIFICATE", der, force); err != nil {
		if !force {
			err = errors.Join(err, os.Remove(keyFile))
		}
		return err
	}
	return nil
}

// writePEM writes a whole file or none: beside it, synced, then put in place by
// link, which refuses to replace, or with force by rename. A crash leaves at
// most the file beside it, and an existing link is replaced, not followed.
func writePEM(path string, mode fs.FileMode, kind string, der []byte, force bool) (err error) {
	if path == "" {
		return errors.New("no path given for the " + kind)
	}
	// CreateTemp makes the file 0600, so a key is never readable in between.
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return &FileError{path, cause(err)}
	}
	tmp := f.Name()
	defer func() {
		if rmErr := os.Remove(tmp); rmErr != nil && !errors.Is(rmErr, fs.ErrNotExist) {
			err = errors.Join(err, rmErr)
		}
	}()
	werr := pem.Encode(f, &pem.Block{Type: kind, Bytes: der})
	if werr == nil {
		werr = f.Chmod(mode)
	}
	if werr == nil {
		werr = f.Sync()
	}
	if err := errors.Join(werr, f.Close()); err != nil {
		return &FileError{path, err}
	}
	if force {
		err = os.Rename(tmp, path)
	} else {
		err = os.Link(tmp, path)
	}
	if errors.Is(err, fs.ErrExist) {
		return &FileError{path, fmt.Errorf("%w; it is kept", fs.ErrExist)}
	}
	if err != nil {
		return &FileError{path, err}
	}
	return nil
}
