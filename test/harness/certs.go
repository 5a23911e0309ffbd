package harness

import (
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/logd-io/logd/pkg/tlsconf"
)

const clusterName = "harness"

func (c *Cluster) certFile(name string) string { return filepath.Join(c.opt.Dir, "tls", name) }

func (c *Cluster) createCA() error {
	if err := os.MkdirAll(c.certFile(""), 0o700); err != nil {
		return err
	}
	err := tlsconf.CreateCA(tlsconf.CAParams{
		Cluster:  clusterName,
		CertFile: c.certFile("ca.pem"),
		KeyFile:  c.certFile("ca-key.pem"),
	})
	if err != nil {
		return err
	}
	for _, role := range []tlsconf.Role{tlsconf.RoleClient, tlsconf.RoleAdmin} {
		if _, err := c.createCert(role, string(role), "127.0.0.1"); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) createCert(role tlsconf.Role, name, host string) (tlsconf.Files, error) {
	f := c.Cert(name)
	return f, tlsconf.CreateCert(tlsconf.CertParams{
		CAFile:    c.certFile("ca.pem"),
		CAKeyFile: c.certFile("ca-key.pem"),
		Identity:  tlsconf.Identity{Cluster: clusterName, Role: role, Name: name},
		DNS:       []string{name}, // for what knows servers by host names only
		IPs:       []net.IP{net.ParseIP(host)},
		CertFile:  f.Cert,
		KeyFile:   f.Key,
	})
}

// AddCert makes one more certificate, for a client or an admin of that name.
func (c *Cluster) AddCert(role tlsconf.Role, name string) error {
	_, err := c.createCert(role, name, "127.0.0.1")
	return err
}

// Cert is where the certificate of a process is, or that of "client" and "admin".
func (c *Cluster) Cert(name string) tlsconf.Files {
	return tlsconf.Files{CA: c.certFile("ca.pem"), Cert: c.certFile(name + ".pem"), Key: c.certFile(name + "-key.pem")}
}

// TLS is a client configuration with the named certificate, for a connection to
// node n that speaks alpn.
func (c *Cluster) TLS(cert string, n *Node, alpn string) (*tls.Config, error) {
	src, err := tlsconf.Load(c.Cert(cert))
	if err != nil {
		return nil, err
	}
	return src.Client(alpn, tlsconf.RoleStorage, n.Name), nil
}

// Dial connects to node n with the named certificate.
func (c *Cluster) Dial(cert string, n *Node) (*grpc.ClientConn, error) {
	conf, err := c.TLS(cert, n, tlsconf.ALPNgRPC)
	if err != nil {
		return nil, err
	}
	return grpc.NewClient("passthrough:///"+n.RPC, grpc.WithTransportCredentials(credentials.NewTLS(conf)))
}

// DialProxy connects to the listener of a proxy that has TLS, with the named
// certificate.
func (c *Cluster) DialProxy(cert string, p *Proxy) (*grpc.ClientConn, error) {
	src, err := tlsconf.Load(c.Cert(cert))
	if err != nil {
		return nil, err
	}
	conf := src.Client(tlsconf.ALPNgRPC, tlsconf.RoleProxy, p.Name)
	return grpc.NewClient("passthrough:///"+p.Addr, grpc.WithTransportCredentials(credentials.NewTLS(conf)))
}

// Naive connects as a client does that knows nothing but an address.
func Naive(addr string, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	if !strings.HasPrefix(addr, "unix:") {
		addr = "passthrough:///" + addr
	}
	return grpc.NewClient(addr, append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
}
