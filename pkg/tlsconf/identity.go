package tlsconf

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"strings"
)

// Role is what a certificate's holder is in the cluster.
type Role string

// The roles. A certificate holds exactly one.
const (
	RoleStorage Role = "storage" // a logd node: may be in Raft
	RoleProxy   Role = "proxy"   // a logproxy: never in Raft
	RoleClient  Role = "client"  // produces and consumes
	RoleAdmin   Role = "admin"   // operates the cluster
)

// Roles returns all roles, in the order a usage text should list them.
func Roles() []Role { return []Role{RoleStorage, RoleProxy, RoleClient, RoleAdmin} }

// ParseRole returns the role called s.
func ParseRole(s string) (Role, error) {
	for _, r := range Roles() {
		if string(r) == s {
			return r, nil
		}
	}
	return "", fmt.Errorf("role %q is not one of %s", s, joinRoles(Roles()))
}

// serves tells whether holders of the role accept connections. Only their
// certificates are made for server authentication, so a client's key cannot
// stand in for a node.
func (r Role) serves() bool { return r == RoleStorage || r == RoleProxy }

const (
	scheme  = "spiffe"
	maxName = 100 // a node id (name + 9 bytes) must fit well into gossip tags
)

// Identity is who a certificate says its holder is.
type Identity struct {
	Cluster string // empty when the certificate has no role URI
	Role    Role
	Name    string
}

// URI returns the identity as it stands in a certificate.
func (id Identity) URI() *url.URL {
	return &url.URL{Scheme: scheme, Host: id.Cluster, Path: "/" + string(id.Role) + "/" + id.Name}
}

// String returns the SPIFFE URI, or role and name when there is no cluster.
func (id Identity) String() string {
	if id.Cluster == "" {
		return string(id.Role) + "/" + id.Name
	}
	return id.URI().String()
}

// Validate reports what keeps the identity from standing in a certificate.
func (id Identity) Validate() error {
	if err := checkWord("cluster", id.Cluster); err != nil {
		return err
	}
	if _, err := ParseRole(string(id.Role)); err != nil {
		return err
	}
	return checkWord("name", id.Name)
}

// IdentityError reports a certificate that does not say who its holder is, or
// says two things.
type IdentityError struct {
	Subject string // the certificate's subject
	Reason  string
}

func (e *IdentityError) Error() string {
	return fmt.Sprintf("certificate %q: %s", e.Subject, e.Reason)
}

// IdentityOf reads the identity from a certificate. It does not verify the
// certificate. A URI and a CN that name different holders are an error, since
// two readers could then take the same certificate for different principals.
func IdentityOf(cert *x509.Certificate) (Identity, error) {
	refuse := func(format string, args ...any) (Identity, error) {
		return Identity{}, &IdentityError{Subject: subjectOf(cert), Reason: fmt.Sprintf(format, args...)}
	}
	var found *url.URL
	for _, u := range cert.URIs {
		if !strings.EqualFold(u.Scheme, scheme) {
			continue
		}
		if found != nil {
			return refuse("has two role URIs, %s and %s", found, u)
		}
		found = u
	}
	cn := cert.Subject.CommonName
	if found == nil {
		if cn == "" {
			return refuse("has neither a role URI nor a CN")
		}
		return Identity{Role: RoleClient, Name: cn}, nil
	}
	id, err := parseURI(found)
	if err != nil {
		return refuse("%v", err)
	}
	if cn != "" && cn != id.Name {
		return refuse("role URI %s and CN %q name different holders", found, cn)
	}
	return id, nil
}

// parseURI accepts the canonical form only: no port, user, query, fragment,
// escape or other case, so that one identity has one spelling.
func parseURI(u *url.URL) (Identity, error) {
	role, name, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	id := Identity{Cluster: u.Host, Role: Role(role), Name: name}
	if err := id.Validate(); err != nil {
		return Identity{}, fmt.Errorf("role URI %s: %w", u, err)
	}
	if id.URI().String() != u.String() {
		return Identity{}, fmt.Errorf("role URI %s is not of the form %s://<cluster>/<role>/<name>", u, scheme)
	}
	return id, nil
}

// checkWord accepts what needs no escape in a URI path, a file name or a tag.
func checkWord(what, s string) error {
	if s == "" {
		return fmt.Errorf("%s: empty", what)
	}
	if len(s) > maxName {
		return fmt.Errorf("%s: %d bytes, at most %d", what, len(s), maxName)
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && (i == 0 || c != '-' && c != '.' && c != '_') {
			return fmt.Errorf("%s %q: letters, digits and inside it . _ - only", what, s)
		}
	}
	return nil
}

// subjectOf names a certificate for a person: its subject, or its first URI or
// DNS name when the subject is empty.
func subjectOf(cert *x509.Certificate) string {
	if s := cert.Subject.String(); s != "" {
		return s
	}
	if len(cert.URIs) > 0 {
		return cert.URIs[0].String()
	}
	if len(cert.DNSNames) > 0 {
		return cert.DNSNames[0]
	}
	return "without a subject, serial " + cert.SerialNumber.String()
}

func joinRoles(roles []Role) string {
	if len(roles) == 0 {
		return "none"
	}
	var b strings.Builder
	for i, r := range roles {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(string(r))
	}
	return b.String()
}
