package tlsconf

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"
)

// Foreign reads what is needed to dial a service that is no part of the cluster: its
// CAs, and the certificate and key that it is shown. Who vouches for the certificate and
// whom it names is that service's affair; else the files are checked as Load does it, and
// the error is one of those.
func Foreign(files Files) (roots *x509.CertPool, cert tls.Certificate, err error) {
	roots, wrong := loadRoots(files)
	cert, _, badPair := loadPair(files)
	if len(badPair) == 0 {
		if err := validNow(cert.Leaf); err != nil {
			badPair = FilesError{{files.Cert, err}}
		}
	}
	if wrong = append(wrong, badPair...); len(wrong) > 0 {
		return nil, tls.Certificate{}, wrong
	}
	return roots, cert, nil
}

func validNow(c *x509.Certificate) error {
	now := time.Now()
	switch {
	case now.After(c.NotAfter):
		return fmt.Errorf("%s has expired at %s; make another", subjectOf(c), c.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(c.NotBefore):
		return fmt.Errorf("%s is not valid before %s", subjectOf(c), c.NotBefore.UTC().Format(time.RFC3339))
	}
	return nil
}

// Secret reads a file with a password under the rule for keys: only its owner writes it, and
// only owner and group read it. what names it in errors, which are a *FileError.
func Secret(what, path string) ([]byte, error) {
	b, wrong := readSecret(what, path)
	if wrong != nil {
		return nil, wrong
	}
	return b, nil
}
