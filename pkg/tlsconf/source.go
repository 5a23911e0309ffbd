package tlsconf

import (
	"crypto/tls"
	"crypto/x509"
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
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(caPEM) {
		return nil, &FileError{files.CA, errors.New("holds no CA certificate in PEM form")}
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, &FileError{files.Cert, fmt.Errorf("with key file %s: %w", files.Key, err)}
	}
	identity, err := IdentityOf(cert.Leaf)
	if err != nil {
		return nil, &FileError{files.Cert, err}
	}
	m := &material{cert: cert, roots: roots, identity: identity}
	chain := make([]*x509.Certificate, 0, len(cert.Certificate))
	for _, der := range cert.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, &FileError{files.Cert, err}
		}
		chain = append(chain, c)
	}
	// A certificate that every peer will refuse is better refused here, where
	// the file can be named.
	if err := m.verifyChain(chain, x509.ExtKeyUsageAny); err != nil {
		return nil, &FileError{files.Cert, fmt.Errorf("against CA file %s: %w", files.CA, err)}
	}
	return m, nil
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
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots:         m.roots,
		Intermediates: intermediates,
		CurrentTime:   time.Now(),
		KeyUsages:     []x509.ExtKeyUsage{usage},
	})
	if err != nil {
		return chainError(chain[0], err)
	}
	return nil
}
