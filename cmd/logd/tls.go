package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/logd-io/logd/config"
	"github.com/logd-io/logd/internal/cli"
	"github.com/logd-io/logd/pkg/tlsconf"
)

const day = 24 * time.Hour

// outFlags are those of a command that writes a certificate and its key.
type outFlags struct {
	dir    string
	days   int
	force  bool
	format *cli.Format
}

func bindOut(fs *flag.FlagSet, days int) *outFlags {
	o := &outFlags{format: cli.FormatFlag(fs)}
	fs.StringVar(&o.dir, "out", ".", "`directory` to write to. Default: the current one")
	fs.IntVar(&o.days, "days", days, fmt.Sprintf("`number` of days it is valid. Default: %d", days))
	fs.BoolVar(&o.force, "force", false, "replace files that exist")
	return o
}

// files are the paths of a certificate and its key.
func (o *outFlags) files(name string) (cert, key string, err error) {
	if o.days < 1 || o.days > 36500 {
		return "", "", cli.Usagef("-days %d: 1 to 36500", o.days)
	}
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return "", "", err
	}
	return filepath.Join(o.dir, name+".pem"), filepath.Join(o.dir, name+"-key.pem"), nil
}

// written are the files, as -format json names them.
type written struct {
	Cert string `json:"cert_file"`
	Key  string `json:"key_file"`
}

func (o *outFlags) wrote(env cli.Env, what, cert, key string) error {
	return o.format.Answer(env.Stdout, written{cert, key},
		fmt.Sprintf("==> Wrote %s\n    Certificate: %s\n            Key: %s\n", what, cert, key))
}

func caCommand() cli.Command {
	return cli.Command{
		Name:     "tls ca create",
		Synopsis: "Make a cluster's certificate authority",
		Long: `Writes ca.pem, which every node, proxy and client needs, and ca-key.pem, which
makes certificates and belongs somewhere safe.`,
		Examples: "tls ca create -cluster example",
		Setup: func(fs *flag.FlagSet, env cli.Env) cli.Action {
			cluster := fs.String("cluster", "", "`name` of the cluster; required")
			out := bindOut(fs, int(tlsconf.DefaultCAValidity/day))
			return func(context.Context, []string) error {
				if *cluster == "" {
					return cli.Usagef("-cluster is required")
				}
				cert, key, err := out.files("ca")
				if err != nil {
					return err
				}
				err = tlsconf.CreateCA(tlsconf.CAParams{
					Cluster: *cluster, CertFile: cert, KeyFile: key,
					ValidFor: time.Duration(out.days) * day, Force: out.force,
				})
				if err != nil {
					return err
				}
				return out.wrote(env, "the CA of cluster "+*cluster, cert, key)
			}
		},
	}
}

func certCommand() cli.Command {
	return cli.Command{
		Name:     "tls cert create",
		Synopsis: "Make a certificate with a role and a name",
		Long: `Writes <name>.pem and <name>-key.pem. The role says what the holder may be: a
storage node, a proxy, a client that produces and consumes, or an admin.`,
		Examples: `tls cert create -role storage -name node1 -dns node1.example.net
tls cert create -role client -name alice`,
		Setup: func(fs *flag.FlagSet, env cli.Env) cli.Action {
			role := fs.String("role", "", "`storage|proxy|client|admin`; required")
			name := fs.String("name", "", "`name` of the holder; required")
			ca := fs.String("ca", "ca.pem", "`file` with the CA's certificate. Default: ca.pem")
			caKey := fs.String("ca-key", "ca-key.pem", "`file` with the CA's key. Default: ca-key.pem")
			var dns []string
			fs.Func("dns", "DNS `name` of the holder, for clients that check it; repeatable", func(s string) error {
				dns = append(dns, s)
				return nil
			})
			var ips []net.IP
			fs.Func("ip", "IP `address` of the holder, likewise; repeatable", func(s string) error {
				ip := net.ParseIP(s)
				if ip == nil {
					return fmt.Errorf("%q is no IP address", s)
				}
				ips = append(ips, ip)
				return nil
			})
			out := bindOut(fs, int(tlsconf.DefaultCertValidity/day))
			return func(context.Context, []string) error {
				if *name == "" || *role == "" {
					return cli.Usagef("-role and -name are required")
				}
				r, err := tlsconf.ParseRole(*role)
				if err != nil {
					return &cli.UsageError{Err: err}
				}
				identity := tlsconf.Identity{Role: r, Name: *name}
				if err := (tlsconf.Identity{Cluster: "any", Role: r, Name: *name}).Validate(); err != nil {
					return &cli.UsageError{Err: err} // before the name becomes a path
				}
				cert, key, err := out.files(*name)
				if err != nil {
					return err
				}
				err = tlsconf.CreateCert(tlsconf.CertParams{
					CAFile: *ca, CAKeyFile: *caKey, Identity: identity, DNS: dns, IPs: ips,
					CertFile: cert, KeyFile: key, ValidFor: time.Duration(out.days) * day, Force: out.force,
				})
				if err != nil {
					return err
				}
				return out.wrote(env, fmt.Sprintf("a certificate of role %s for %s", r, *name), cert, key)
			}
		},
	}
}

func keygenCommand() cli.Command {
	return cli.Command{
		Name:     "keygen",
		Synopsis: "Make a gossip key",
		Long:     "Prints a new random key for gossip_key or a gossip_key_file.",
		Examples: "keygen >gossip.key",
		Setup: func(_ *flag.FlagSet, env cli.Env) cli.Action {
			return func(context.Context, []string) error {
				key := make([]byte, config.GossipKeyLen)
				if _, err := rand.Read(key); err != nil {
					return err
				}
				_, err := fmt.Fprintln(env.Stdout, base64.StdEncoding.EncodeToString(key))
				return err
			}
		},
	}
}
