package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/logd-io/logd/internal/cli"
	"github.com/logd-io/logd/pkg/tlsconf"
)

// shownCert is a certificate as tls show -format json writes it.
type shownCert struct {
	Kind      string    `json:"kind"` // certificate, CA
	Subject   string    `json:"subject"`
	Issuer    string    `json:"issuer"`
	Serial    string    `json:"serial"`
	Cluster   string    `json:"cluster"`
	Role      string    `json:"role,omitempty"`
	Name      string    `json:"name,omitempty"`
	DNS       []string  `json:"dns,omitempty"`
	IPs       []string  `json:"ips,omitempty"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	EndsSoon  bool      `json:"ends_soon"`
	Uses      []string  `json:"uses"`
	Problems  []string  `json:"problems"` // why peers would refuse it
}

func tlsShowCommand() cli.Command {
	return cli.Command{
		Name:     "tls show",
		Synopsis: "Show what a certificate is for, or wrong with it",
		Args:     "<file>",
		Long: `Shows each certificate in a PEM file: whose it is, in which cluster and role, how
long it lasts, and who takes it for what; and, when peers would refuse it, why. With
-ca it is held against the CAs that peers have. It exits with 1 when anything is
wrong with any of them.`,
		Examples: "tls show -ca ca.pem node1.pem",
		Setup: func(fs *flag.FlagSet, env cli.Env) cli.Action {
			ca := fs.String("ca", "", "`file` with the CAs of the peers. Default: not checked")
			format := cli.FormatFlag(fs)
			return func(_ context.Context, args []string) error {
				if len(args) != 1 {
					return cli.Usagef("exactly one file is needed")
				}
				return tlsShow(env.Stdout, args[0], *ca, *format)
			}
		},
	}
}

func tlsShow(w io.Writer, file, ca string, format cli.Format) error {
	now := time.Now()
	reports, err := tlsconf.Inspect(file, ca, now)
	if err != nil {
		return err
	}
	shown := make([]shownCert, len(reports))
	wrong := false
	for i, r := range reports {
		shown[i] = showCert(r, now)
		wrong = wrong || len(r.Problems) > 0
	}
	if format == cli.JSON {
		err = cli.WriteJSON(w, shown)
	} else {
		for _, s := range shown {
			if err = s.write(w, ca != "", now); err != nil {
				break
			}
		}
	}
	if err == nil && wrong {
		err = cli.ErrReported
	}
	return err
}

func showCert(r tlsconf.Report, now time.Time) shownCert {
	c := r.Cert
	s := shownCert{
		Kind: "certificate", Subject: c.Subject.String(), Issuer: c.Issuer.String(), Serial: c.SerialNumber.Text(16),
		Cluster: r.Identity.Cluster, Role: string(r.Identity.Role), Name: r.Identity.Name, DNS: c.DNSNames,
		NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC(), EndsSoon: tlsconf.EndsSoon(c, now),
		Uses: []string{}, Problems: append([]string{}, r.Problems...),
	}
	for _, ip := range c.IPAddresses {
		s.IPs = append(s.IPs, ip.String())
	}
	if r.CA {
		s.Kind = "CA"
		s.Uses = append(s.Uses, "vouch for certificates, in the ca_file of everybody who is to believe them")
		return s
	}
	s.Uses = append(s.Uses, r.Identity.Role.Uses()...)
	return s
}

// write is for people.
func (s shownCert) write(w io.Writer, checked bool, now time.Time) error {
	var b strings.Builder
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%14s: %s\n", name, value)
		}
	}
	fmt.Fprintf(&b, "==> %s %q\n", s.Kind, s.Subject)
	line("Role", s.Role)
	line("Name", s.Name)
	cluster := s.Cluster
	if cluster == "" {
		cluster = "any: it names none"
	}
	line("Cluster", cluster)
	line("DNS names", strings.Join(s.DNS, ", "))
	line("IP addresses", strings.Join(s.IPs, ", "))
	line("Issued by", s.Issuer)
	line("Serial number", s.Serial)
	line("Valid from", s.NotBefore.Format(time.RFC3339))
	until := s.NotAfter.Format(time.RFC3339)
	if left := s.NotAfter.Sub(now); left > 0 {
		until += fmt.Sprintf(" (%d days left)", left/day)
	}
	if s.EndsSoon {
		until += "; replace it soon"
	}
	line("Valid until", until)
	for _, use := range s.Uses {
		line("Good to", use)
	}
	for _, p := range s.Problems {
		line("REFUSED", p)
	}
	switch {
	case len(s.Problems) > 0:
	case checked:
		line("Peers", "take it")
	default:
		line("Peers", "take it, if they have its CA (-ca <file> checks)")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
