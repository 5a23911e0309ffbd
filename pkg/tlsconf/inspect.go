package tlsconf

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Report is what there is to say about a certificate.
type Report struct {
	Cert     *x509.Certificate
	CA       bool
	Identity Identity // of a CA only the cluster it issues for, which may be empty
	// Problems is why peers would refuse it, or what it vouches for.
	Problems []string
}

// Inspect reads the certificates of a PEM file: a holder's first, with the
// intermediates after it, or CAs. What vouches for them is looked for in caFile,
// unless it is empty. The error is about the files; what is wrong with a
// certificate is in its report.
func Inspect(file, caFile string, now time.Time) ([]Report, error) {
	certs, err := parseFile("certificate file", file)
	if err != nil {
		return nil, err
	}
	var roots []*x509.Certificate
	if caFile != "" {
		if roots, err = parseFile("CA file", caFile); err != nil {
			return nil, err
		}
	}
	reports := make([]Report, len(certs))
	for i, c := range certs {
		reports[i] = inspect(c, now)
		if caFile != "" {
			reports[i].vouched(certs, roots, now)
		}
	}
	return reports, nil
}

func parseFile(what, path string) ([]*x509.Certificate, error) {
	text, bad := readFile(what, path)
	if bad != nil {
		return nil, bad
	}
	certs, err := parse(text)
	if err == nil && len(certs) == 0 {
		err = errors.New("holds no certificate in PEM form")
	}
	if err != nil {
		return nil, &FileError{path, err}
	}
	return certs, nil
}

func inspect(c *x509.Certificate, now time.Time) Report {
	r := Report{Cert: c, CA: c.IsCA}
	problem := func(format string, args ...any) { r.Problems = append(r.Problems, fmt.Sprintf(format, args...)) }
	switch {
	case now.Before(c.NotBefore):
		problem("it is not valid before %s", c.NotBefore.UTC().Format(time.RFC3339))
	case now.After(c.NotAfter):
		problem("it expired at %s", c.NotAfter.UTC().Format(time.RFC3339))
	}
	if c.IsCA {
		r.Identity.Cluster = clusterOf(c)
		if c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0 {
			problem("it may not sign certificates (key usage)")
		}
		return r
	}
	id, err := IdentityOf(c)
	if err != nil {
		problem("%s", err.(*IdentityError).Reason) //nolint:errorlint,forcetypeassert // the one type it returns, bare
		return r
	}
	r.Identity = id
	may := func(usage x509.ExtKeyUsage) bool {
		return slices.Contains(c.ExtKeyUsage, usage) || slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny) ||
			len(c.ExtKeyUsage) == 0 && len(c.UnknownExtKeyUsage) == 0
	}
	if !may(x509.ExtKeyUsageClientAuth) {
		problem("it is not for clients (extended key usage), and everybody dials somebody")
	}
	if id.Role == RoleStorage && !may(x509.ExtKeyUsageServerAuth) {
		problem("it is not for servers (extended key usage), which role %s needs", id.Role)
	}
	return r
}

// vouched looks for a way to one of roots.
func (r *Report) vouched(sent, roots []*x509.Certificate, now time.Time) {
	pool, between := x509.NewCertPool(), x509.NewCertPool()
	for _, c := range roots {
		pool.AddCert(c)
	}
	for _, c := range sent {
		between.AddCert(c)
	}
	if now.Before(r.Cert.NotBefore) || now.After(r.Cert.NotAfter) {
		now = r.Cert.NotAfter // that has been said; is it all?
	}
	chains, err := r.Cert.Verify(x509.VerifyOptions{
		Roots: pool, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		r.Problems = append(r.Problems, fmt.Sprintf("no CA given vouches for it: issued by %q: %v", r.Cert.Issuer, err))
		return
	}
	chain := chains[0]
	if c := clusterOf(chain[len(chain)-1]); c != "" && r.Identity.Cluster != "" && c != r.Identity.Cluster {
		r.Problems = append(r.Problems, fmt.Sprintf("it is of cluster %q, and its CA of cluster %q", r.Identity.Cluster, c))
	}
}

// Uses are what the holder of a certificate with the role may do where, a line
// each.
func (r Role) Uses() []string {
	switch r {
	case RoleStorage:
		return []string{
			"listen as a node (RPC port: gRPC and Raft), under this name",
			"speak Raft and gRPC to other nodes, join the cluster",
		}
	case RoleProxy:
		return []string{
			"speak gRPC to nodes for clients that it names; never Raft",
			"listen for clients, if in the tls block of a proxy's listener",
		}
	case RoleClient:
		return []string{"produce and consume, at a node's RPC port or a proxy's listener with TLS"}
	case RoleAdmin:
		return []string{
			"operate nodes at their RPC port (logd members, operator, keyring)",
			"produce and consume, like a client",
		}
	}
	return nil
}
