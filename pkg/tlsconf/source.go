package tlsconf

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
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

// FilesError is what is wrong, each with its file: more than one thing.
type FilesError []*FileError

func (e FilesError) Error() string {
	text := make([]string, len(e))
	for i, f := range e {
		text[i] = f.Error()
	}
	return strings.Join(text, "; ")
}

func (e FilesError) Unwrap() []error {
	errs := make([]error, len(e))
	for i, f := range e {
		errs[i] = f
	}
	return errs
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
// valid now, chains to the CA and says who its holder is. Its error wraps a *FileError,
// or several: everything that is wrong.
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
	use, err := s.Prepare()
	if err == nil {
		use()
	}
	return err
}

// Prepare is the half of Reload that can fail: use does the rest.
func (s *Source) Prepare() (use func(), err error) {
	m, err := load(s.files)
	if err == nil {
		if was := s.Identity(); m.identity != was {
			err = &FileError{s.files.Cert, fmt.Errorf("is the certificate of %s, and this process runs as %s", m.identity, was)}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("reload certificates: %w", err)
	}
	return func() { s.current.Store(m) }, nil
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
	roots, badRoots := loadRoots(files)
	m, chain, badHolder := loadHolder(files)
	if wrong := append(badRoots, badHolder...); len(wrong) == 1 {
		return nil, wrong[0]
	} else if len(wrong) > 1 {
		return nil, wrong
	}
	m.roots = roots
	// A certificate that every peer will refuse is better refused here, where
	// the file can be named.
	verified, err := m.chains(chain, x509.ExtKeyUsageAny)
	if err != nil {
		var invalid x509.CertificateInvalidError
		advice := ""
		if errors.As(err, &invalid) && invalid.Reason == x509.Expired && time.Now().After(m.cert.Leaf.NotAfter) {
			advice = "; make another (logd tls cert create)"
		}
		return nil, &FileError{files.Cert, fmt.Errorf("against CA file %s: %w%s", files.CA, err, advice)}
	}
	for _, c := range verified {
		if root := c[len(c)-1]; m.issuer == nil || root.NotAfter.After(m.issuer.NotAfter) {
			m.issuer = root
		}
	}
	return m, nil
}

func loadRoots(files Files) (*x509.CertPool, FilesError) {
	text, wrong := readFile("CA file", files.CA)
	if wrong != nil {
		return nil, FilesError{wrong}
	}
	cas, err := parse(text)
	if err == nil && len(cas) == 0 {
		err = errors.New("holds no CA certificate in PEM form")
	}
	if err != nil {
		return nil, FilesError{{files.CA, err}}
	}
	roots := x509.NewCertPool()
	for _, ca := range cas {
		roots.AddCert(ca)
	}
	return roots, nil
}

// loadHolder loads what its holder shows, all but the CAs of others: the chain begins
// with the certificate.
func loadHolder(files Files) (m *material, chain []*x509.Certificate, wrong FilesError) {
	cert, chain, wrong := loadPair(files)
	if len(wrong) > 0 {
		return nil, nil, wrong
	}
	identity, err := IdentityOf(cert.Leaf)
	if err != nil {
		return nil, nil, FilesError{{files.Cert, err}}
	}
	return &material{cert: cert, identity: identity}, chain, nil
}

// loadPair loads a certificate and its key, whoever its holder is.
func loadPair(files Files) (cert tls.Certificate, chain []*x509.Certificate, wrong FilesError) {
	certPEM, bad := readFile("certificate file", files.Cert)
	if bad != nil {
		wrong = append(wrong, bad)
	}
	keyPEM, bad := readKey(files.Key)
	if bad != nil {
		wrong = append(wrong, bad)
	}
	if len(wrong) > 0 {
		return cert, nil, wrong
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return cert, nil, FilesError{{files.Cert, fmt.Errorf("with key file %s: %w", files.Key, err)}}
	}
	if chain, err = parse(certPEM); err != nil {
		return cert, nil, FilesError{{files.Cert, err}}
	}
	return cert, chain, nil
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

func readFile(what, path string) ([]byte, *FileError) {
	if path == "" {
		return nil, &FileError{what, errors.New("no path given")}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, &FileError{path, fmt.Errorf("read %s: %w", what, cause(err))}
	}
	return b, nil
}

// readKey reads a key file that others cannot read.
func readKey(path string) ([]byte, *FileError) { return readSecret("key file", path) }

// readSecret reads a file that others cannot read. The group may (0640 is how
// secrets are mounted for a process that is not root), but not write.
func readSecret(what, path string) ([]byte, *FileError) {
	b, wrong := readFile(what, path)
	if wrong != nil {
		return nil, wrong
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, &FileError{path, fmt.Errorf("stat %s: %w", what, cause(err))}
	}
	if mode := info.Mode().Perm(); mode&0o027 != 0 {
		return nil, &FileError{path, fmt.Errorf("%s has mode %04o, which lets others at it; chmod 600 it", what, mode)}
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
