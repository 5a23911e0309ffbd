package tlsconf

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
)

// RoleError reports a peer whose role is not taken here.
type RoleError struct {
	Subject string // of the peer's certificate
	Got     Identity
	Allowed []Role
}

func (e *RoleError) Error() string {
	return fmt.Sprintf("certificate %q has role %s; allowed here: %s", e.Subject, e.Got.Role, joinRoles(e.Allowed))
}

// NameError reports a peer that is not the one that was dialled.
type NameError struct {
	Got  Identity
	Want string
}

func (e *NameError) Error() string {
	return fmt.Sprintf("the peer is %s, expected the name %q", e.Got, e.Want)
}

// ClusterError reports a peer that belongs to another cluster.
type ClusterError struct {
	Got  Identity
	Want string
}

func (e *ClusterError) Error() string {
	return fmt.Sprintf("the peer is %s, expected the cluster %q", e.Got, e.Want)
}

// ALPNError reports a peer that does not speak the protocol of this port.
type ALPNError struct {
	Want []string
	Got  string // empty: none negotiated
}

func (e *ALPNError) Error() string {
	got := "none"
	if e.Got != "" {
		got = fmt.Sprintf("%q", e.Got)
	}
	return fmt.Sprintf("protocol (ALPN) negotiated: %s, wanted: %s", got, strings.Join(e.Want, ", "))
}

// ChainError reports a certificate our CAs do not vouch for, or no longer.
type ChainError struct {
	Subject, Issuer string
	Err             error // of crypto/x509
}

func (e *ChainError) Error() string {
	return fmt.Sprintf("certificate %q, issued by %q: %v", e.Subject, e.Issuer, e.Err)
}
func (e *ChainError) Unwrap() error { return e.Err }

func chainError(cert *x509.Certificate, err error) *ChainError {
	return &ChainError{Subject: subjectOf(cert), Issuer: cert.Issuer.String(), Err: err}
}

// Explain makes a failed handshake's error name the certificate it was about,
// where the library's does not. Other errors, nil too, are returned unchanged.
func Explain(err error) error {
	var ce *tls.CertificateVerificationError
	if errors.As(err, &ce) && len(ce.UnverifiedCertificates) > 0 {
		return chainError(ce.UnverifiedCertificates[0], ce.Err)
	}
	return err
}
