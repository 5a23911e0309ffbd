package devcluster

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"github.com/logd-io/logd/config"
	"github.com/logd-io/logd/pkg/tlsconf"
)

const proxyName = "proxy1"

func nodeName(i int) string { return fmt.Sprintf("node%d", i) }

// certs is a folder of certificates, one a process and one for each role of
// those who come from outside.
type certs struct{ dir string }

func (c certs) files(name string) tlsconf.Files {
	return tlsconf.Files{
		CA:   filepath.Join(c.dir, "ca.pem"),
		Cert: filepath.Join(c.dir, name+".pem"),
		Key:  filepath.Join(c.dir, name+"-key.pem"),
	}
}

func (c certs) config(name string) config.TLS {
	f := c.files(name)
	return config.TLS{CAFile: f.CA, CertFile: f.Cert, KeyFile: f.Key}
}

// makeCerts makes what the folder lacks.
func makeCerts(dir string, nodes int) (certs, error) {
	c := certs{dir}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return c, err
	}
	caKey := filepath.Join(dir, "ca-key.pem")
	err := tlsconf.CreateCA(tlsconf.CAParams{Cluster: clusterName, CertFile: c.files("").CA, KeyFile: caKey})
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return c, err
	}
	who := map[string]tlsconf.Role{
		proxyName:                  tlsconf.RoleProxy,
		string(tlsconf.RoleClient): tlsconf.RoleClient,
		string(tlsconf.RoleAdmin):  tlsconf.RoleAdmin,
	}
	for i := range nodes {
		who[nodeName(i+1)] = tlsconf.RoleStorage
	}
	for name, role := range who {
		f := c.files(name)
		err := tlsconf.CreateCert(tlsconf.CertParams{
			CAFile: f.CA, CAKeyFile: caKey,
			Identity: tlsconf.Identity{Cluster: clusterName, Role: role, Name: name},
			DNS:      []string{"localhost"},
			IPs:      []net.IP{net.IPv4(127, 0, 0, 1)},
			CertFile: f.Cert, KeyFile: f.Key,
		})
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return c, err
		}
	}
	return c, nil
}
