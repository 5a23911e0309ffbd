package tlsconf

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"slices"
)

// The protocols spoken on the RPC port, told apart by ALPN.
const (
	ALPNgRPC = "h2"
	ALPNRaft = "logd-raft/1"
)

// Server returns the configuration of a listener that speaks the protocols in
// alpn and takes peers of the allowed roles, of our cluster. With no role
// allowed nobody gets in. With protocols given, a peer that offers none of them
// is refused. A handshake fails with a *RoleError, *ClusterError, *ALPNError,
// *IdentityError, or, for a chain that does not verify, with an error Explain
// turns into a *ChainError.
func (s *Source) Server(alpn []string, allow ...Role) *tls.Config {
	alpn, allow = slices.Clone(alpn), slices.Clone(allow)
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		ClientAuth:             tls.RequireAndVerifyClientCert,
		NextProtos:             alpn,
		SessionTicketsDisabled: true,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return s.current.Load().server(alpn, allow), nil
		},
	}
}

// Open returns the configuration of a listener that asks for a certificate and goes on
// without one. One that is shown must be good, or the handshake fails. No protocol is
// negotiated. What a connection may do, Holds says.
func (s *Source) Open() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		ClientAuth:             tls.VerifyClientCertIfGiven,
		SessionTicketsDisabled: true,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			m := s.current.Load()
			return &tls.Config{
				MinVersion:             tls.VersionTLS13,
				Certificates:           []tls.Certificate{m.cert},
				ClientAuth:             tls.VerifyClientCertIfGiven,
				ClientCAs:              m.roots,
				SessionTicketsDisabled: true,
			}, nil
		},
	}
}

// Holds is nil when the other side of an established connection has shown a certificate
// of our cluster with an allowed role, and our CAs vouch for it now. It may be asked as
// often as the connection is used, which a change of CA does not end.
func (s *Source) Holds(cs tls.ConnectionState, allow ...Role) error {
	if len(cs.PeerCertificates) == 0 {
		return errors.New("the peer showed no certificate")
	}
	m := s.current.Load()
	if err := m.verifyChain(cs.PeerCertificates, x509.ExtKeyUsageClientAuth); err != nil {
		return err
	}
	_, err := m.admit(cs, allow)
	return err
}

// server is what one handshake of a listener uses.
func (m *material) server(alpn []string, allow []Role) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{m.cert},
		ClientAuth:             tls.RequireAndVerifyClientCert,
		ClientCAs:              m.roots,
		NextProtos:             alpn,
		SessionTicketsDisabled: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			if len(alpn) > 0 && !slices.Contains(alpn, cs.NegotiatedProtocol) {
				return &ALPNError{Want: alpn}
			}
			_, err := m.admit(cs, allow)
			return err
		},
	}
}

// Client returns the configuration for dialling a peer that must speak alpn
// (empty: not negotiated), have wantRole (empty: any role that serves) and, when
// wantName is not empty, that name, in our cluster. Names and addresses of the
// network are not compared with the certificate: who the peer is stands in its
// URI. A handshake fails with a *ChainError, *RoleError, *NameError,
// *ClusterError, *ALPNError or *IdentityError.
func (s *Source) Client(alpn string, wantRole Role, wantName string) *tls.Config {
	allow := []Role{wantRole}
	if wantRole == "" {
		allow = []Role{RoleStorage, RoleProxy}
	}
	var protos []string
	if alpn != "" {
		protos = []string{alpn}
	}
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             protos,
		SessionTicketsDisabled: true,
		// Switches off only the library's check, which wants a DNS name.
		// VerifyConnection below verifies the chain, always.
		InsecureSkipVerify: true,
		// Always shown, so that a server with other CAs can say what is wrong
		// with it rather than that there was none.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &s.current.Load().cert, nil
		},
		VerifyConnection: func(cs tls.ConnectionState) error {
			m := s.current.Load()
			if len(cs.PeerCertificates) == 0 {
				return errors.New("the peer showed no certificate")
			}
			if err := m.verifyChain(cs.PeerCertificates, x509.ExtKeyUsageServerAuth); err != nil {
				return err
			}
			if alpn != "" && cs.NegotiatedProtocol != alpn {
				return &ALPNError{Want: protos, Got: cs.NegotiatedProtocol}
			}
			id, err := m.admit(cs, allow)
			if err != nil {
				return err
			}
			if wantName != "" && id.Name != wantName {
				return &NameError{Got: id, Want: wantName}
			}
			return nil
		},
	}
}

// admit checks who the peer is: of our cluster and of an allowed role.
func (m *material) admit(cs tls.ConnectionState, allow []Role) (Identity, error) {
	id, err := Peer(cs)
	if err != nil {
		return Identity{}, err
	}
	// Without a URI on either side there is no cluster to compare; the CA vouches.
	if own := m.identity.Cluster; own != "" && id.Cluster != "" && id.Cluster != own {
		return Identity{}, &ClusterError{Got: id, Want: own}
	}
	if !slices.Contains(allow, id.Role) {
		return Identity{}, &RoleError{Subject: subjectOf(cs.PeerCertificates[0]), Got: id, Allowed: allow}
	}
	return id, nil
}

// Peer returns who is on the other side of an established connection.
func Peer(cs tls.ConnectionState) (Identity, error) {
	if len(cs.PeerCertificates) == 0 {
		return Identity{}, errors.New("the peer showed no certificate")
	}
	return IdentityOf(cs.PeerCertificates[0])
}
