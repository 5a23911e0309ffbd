package tlsconf

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"
)

// Files names the PEM files of one holder.
type Files struct {
	CA   string // one or more CA certificates
	Cert string // the holder's certificate, then intermediates if any
	Key  string // its key; no access for others
}

// FileError reports a file that could not be used.
type FileError struct {
	Path string
	Err  error
}

func (e *FileError) Error() string { return fmt.Sprintf("%s: %v", e.Path, e.Err) }
func (e *FileError) Unwrap() error { return e.Err }

// Source holds a certificate, its key and the CAs, and makes TLS configurations
// from them. Safe for concurrent use.
type Source struct {
	files Files
	// What handshakes use. Every handshake loads it anew and nothing behind it
	// ever changes, so a reload is one Store of a material that loaded whole.
	current atomic.Pointer[material]
}

// material is one consistent set of what the files held. Immutable.
type material struct {
	cert     tls.Certificate // Leaf is set
	roots    *x509.CertPool
	issuer   *x509.Certificate // the CA that vouches for cert, of several the one that does longest
	identity Identity
}

// Load reads and checks the files: the key belongs to the certificate, which is
// valid now, chains to the CA and says who its holder is.
func Load(files Files) (*Source, error) {
	m, err := load(files)
	if err != nil {
		return nil, fmt.Errorf("load certificates: %w", err)
	}
	s := &Source{files: files}
	s.current.Store(m)
	return s, nil
}

// Reload reads the files again. Handshakes that begin afterwards use what they
// hold; connections that exist go on. When the files do not load, or hold the
// certificate of another holder, everything stays as it was.
func (s *Source) Reload() error {
	m, err := load(s.files)
	if err == nil {
		if was := s.Identity(); m.identity != was {
			err = &FileError{s.files.Cert, fmt.Errorf("is the certificate of %s, and this process runs as %s", m.identity, was)}
		}
	}
	if err != nil {
		return fmt.Errorf("reload certificates: %w", err)
	}
	s.current.Store(m)
	return nil
}

// Certificates returns the certificate in use and the CA that vouches for it, of
// several the one that does so for longest. They must not be changed.
func (s *Source) Certificates() (leaf, ca *x509.Certificate) {
	m := s.current.Load()
	return m.cert.Leaf, m.issuer
}

// Identity returns who the source's own certificate says we are.
func (s *Source) Identity() Identity { return s.current.Load().identity }

// Files returns the names the source was loaded from.
func (s *Source) Files() Files { return s.files }

func load(files Files) (*material, error) {
	caPEM, err := readFile("CA file", files.CA)
	if err != nil {
		return nil, err
	}
	certPEM, err := readFile("certificate file", files.Cert)
	if err != nil {
		return nil, err
	}
	keyPEM, err := readKey(files.Key)
	if err != nil {
		return nil, err
	}
	cas, err := parse(caPEM)
	if err != nil {
		return nil, &FileError{files.CA, err}
	}
	if len(cas) == 0 {
		return nil, &FileError{files.CA, errors.New("holds no CA certificate in PEM form")}
	}
	roots := x509.NewCertPool()
	for _, ca := range cas {
		roots.AddCert(ca)
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, &FileError{files.Cert, fmt.Errorf("with key file %s: %w", files.Key, err)}
	}
	chain, err := parse(certPEM)
	if err != nil {
		return nil, &FileError{files.Cert, err}
	}
	identity, err := IdentityOf(cert.Leaf)
	if err != nil {
		return nil, &FileError{files.Cert, err}
	}
	m := &material{cert: cert, roots: roots, identity: identity}
	// A certificate that every peer will refuse is better refused here, where
	// the file can be named.
	verified, err := m.chains(chain, x509.ExtKeyUsageAny)
	if err != nil {
		return nil, &FileError{files.Cert, fmt.Errorf("against CA file %s: %w", files.CA, err)}
	}
	for _, c := range verified {
		if root := c[len(c)-1]; m.issuer == nil || root.NotAfter.After(m.issuer.NotAfter) {
			m.issuer = root
		}
	}
	return m, nil
}

// parse reads all certificates in PEM form, and nothing less: of a file that is
// still being written, what there is so far must not pass for all.
func parse(text []byte) (certs []*x509.Certificate, err error) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d in it: %w", len(certs)+1, err)
		}
		certs = append(certs, c)
	}
	if bytes.Contains(text, []byte("-----BEGIN")) {
		return nil, fmt.Errorf("what follows certificate %d in it is damaged or cut short", len(certs))
	}
	return certs, nil
}

func readFile(what, path string) ([]byte, error) {
	if path == "" {
		return nil, fmt.Errorf("%s: no path given", what)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, &FileError{path, fmt.Errorf("read %s: %w", what, cause(err))}
	}
	return b, nil
}

// readKey reads a key file that others cannot read. The group may (0640 is how
// secrets are mounted for a process that is not root), but not write.
func readKey(path string) ([]byte, error) {
	b, err := readFile("key file", path)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, &FileError{path, fmt.Errorf("stat key file: %w", cause(err))}
	}
	if mode := info.Mode().Perm(); mode&0o027 != 0 {
		return nil, &FileError{path, fmt.Errorf("key file has mode %04o, which lets others at it; chmod 600 it", mode)}
	}
	return b, nil
}

// cause drops the path from an error of package os, since FileError has it.
func cause(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// verifyChain checks chain[0] against our CAs, for now and for usage.
func (m *material) verifyChain(chain []*x509.Certificate, usage x509.ExtKeyUsage) error {
	_, err := m.chains(chain, usage)
	return err
}

// chains are the ways from chain[0] to our CAs, at least one.
func (m *material) chains(chain []*x509.Certificate, usage x509.ExtKeyUsage) ([][]*x509.Certificate, error) {
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	verified, err := chain[0].Verify(x509.VerifyOptions{
		Roots:         m.roots,
		Intermediates: intermediates,
		CurrentTime:   time.Now(),
		KeyUsages:     []x509.ExtKeyUsage{usage},
	})
	if err != nil {
		return nil, chainError(chain[0], err)
	}
	return verified, nil
}
