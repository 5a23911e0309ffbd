package tlsconf_test

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/tlsconf"
	"github.com/logd-io/logd/pkg/tlsconf/tlstest"
)

func TestCreate(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	ca := tlsconf.CAParams{Cluster: "prod", CertFile: at("ca.pem"), KeyFile: at("ca-key.pem")}
	require.NoError(t, tlsconf.CreateCA(ca))
	cert := tlsconf.CertParams{
		CAFile: ca.CertFile, CAKeyFile: ca.KeyFile,
		Identity: tlsconf.Identity{Role: tlsconf.RoleStorage, Name: "n1"},
		DNS:      []string{"n1.example"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)},
		CertFile: at("n1.pem"), KeyFile: at("n1-key.pem"),
	}
	require.NoError(t, tlsconf.CreateCert(cert))

	for name, mode := range map[string]fs.FileMode{"ca-key.pem": 0o600, "n1-key.pem": 0o600, "ca.pem": 0o644, "n1.pem": 0o644} {
		info, err := os.Stat(at(name))
		require.NoError(t, err)
		require.Equal(t, mode, info.Mode().Perm(), name)
	}
	files := tlsconf.Files{CA: at("ca.pem"), Cert: at("n1.pem"), Key: at("n1-key.pem")}
	s, err := tlsconf.Load(files)
	require.NoError(t, err)
	// The cluster came from the CA.
	require.Equal(t, tlsconf.Identity{Cluster: "prod", Role: tlsconf.RoleStorage, Name: "n1"}, s.Identity())
	require.Equal(t, files, s.Files())
	leaf := tlstest.KeyPair(t, files).Leaf
	require.Equal(t, []string{"n1.example"}, leaf.DNSNames)
	require.Len(t, leaf.IPAddresses, 1)
	require.NoError(t, leaf.VerifyHostname("n1.example"))

	// Nothing is replaced without being told to, and then both halves are.
	read := func(name string) string {
		b, err := os.ReadFile(at(name))
		require.NoError(t, err)
		return string(b)
	}
	before := map[string]string{}
	for _, name := range []string{"ca.pem", "ca-key.pem", "n1.pem", "n1-key.pem"} {
		before[name] = read(name)
	}
	err = tlsconf.CreateCA(ca)
	require.ErrorIs(t, err, fs.ErrExist)
	require.ErrorContains(t, err, at("ca.pem"))
	err = tlsconf.CreateCert(cert)
	require.ErrorIs(t, err, fs.ErrExist)
	cert.CertFile = at("other.pem") // only the key is in the way
	require.ErrorIs(t, tlsconf.CreateCert(cert), fs.ErrExist)
	require.NoFileExists(t, at("other.pem"))
	for name, want := range before {
		require.Equal(t, want, read(name), name)
	}
	cert.CertFile, cert.Force = at("n1.pem"), true
	require.NoError(t, tlsconf.CreateCert(cert))
	require.NotEqual(t, before["n1.pem"], read("n1.pem"))
	require.NotEqual(t, before["n1-key.pem"], read("n1-key.pem"))
	_, err = tlsconf.Load(files)
	require.NoError(t, err)

	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 4, "no file is left beside the four")
}

func TestCreateRefuses(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	ca := tlstest.NewCA(t, "prod")
	leaf := ca.Files(t, tlsconf.RoleStorage, "n1")
	base := tlsconf.CertParams{
		CAFile: ca.CertFile, CAKeyFile: ca.KeyFile,
		Identity: tlsconf.Identity{Cluster: "prod", Role: tlsconf.RoleStorage, Name: "n1"},
		CertFile: at("c.pem"), KeyFile: at("k.pem"),
	}
	for _, tc := range []struct {
		name   string
		change func(*tlsconf.CertParams)
		says   []string
	}{
		{"another cluster", func(p *tlsconf.CertParams) { p.Identity.Cluster = "test" }, []string{ca.CertFile, `"prod"`, `"test"`}},
		{"no role", func(p *tlsconf.CertParams) { p.Identity.Role = "" }, []string{"storage, proxy, client, admin"}},
		{"a name with a slash", func(p *tlsconf.CertParams) { p.Identity.Name = "a/b" }, []string{`"a/b"`}},
		{"not a CA", func(p *tlsconf.CertParams) { p.CAFile, p.CAKeyFile = leaf.Cert, leaf.Key }, []string{leaf.Cert, "CN=n1", "not a CA"}},
		{"another's key", func(p *tlsconf.CertParams) { p.CAKeyFile = leaf.Key }, []string{ca.CertFile, leaf.Key}},
		{"no such CA", func(p *tlsconf.CertParams) { p.CAFile = at("nope.pem") }, []string{at("nope.pem"), "no such file"}},
		{"no such directory", func(p *tlsconf.CertParams) { p.KeyFile = at("no/k.pem") }, []string{at("no/k.pem")}},
		{"no path", func(p *tlsconf.CertParams) { p.CertFile = "" }, []string{"no path"}},
		{"negative validity", func(p *tlsconf.CertParams) { p.ValidFor = -time.Hour }, []string{"validity"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := base
			tc.change(&p)
			err := tlsconf.CreateCert(p)
			require.Error(t, err)
			for _, part := range tc.says {
				require.ErrorContains(t, err, part)
			}
			entries, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Empty(t, entries, "a refusal writes nothing")
		})
	}
	require.ErrorContains(t, tlsconf.CreateCA(tlsconf.CAParams{Cluster: "a b", CertFile: at("c"), KeyFile: at("k")}), `"a b"`)
}

func TestLoadNamesTheFile(t *testing.T) {
	ca, other := tlstest.NewCA(t, "prod"), tlstest.NewCA(t, "prod")
	good := ca.Files(t, tlsconf.RoleStorage, "n1")
	second := ca.Files(t, tlsconf.RoleStorage, "n2")
	junk := filepath.Join(t.TempDir(), "junk.pem")
	require.NoError(t, os.WriteFile(junk, []byte("not PEM"), 0o600))
	open := filepath.Join(t.TempDir(), "open-key.pem")
	key, err := os.ReadFile(good.Key)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(open, key, 0o600))
	require.NoError(t, os.Chmod(open, 0o644))

	for _, tc := range []struct {
		name  string
		files tlsconf.Files
		path  string // of the FileError; empty: not about a file
		says  string
	}{
		{"no path", tlsconf.Files{Cert: good.Cert, Key: good.Key}, "", "CA file: no path"},
		{"missing CA", tlsconf.Files{CA: junk + "x", Cert: good.Cert, Key: good.Key}, junk + "x", "no such file"},
		{"missing certificate", tlsconf.Files{CA: good.CA, Cert: junk + "x", Key: good.Key}, junk + "x", "certificate file"},
		{"missing key", tlsconf.Files{CA: good.CA, Cert: good.Cert, Key: junk + "x"}, junk + "x", "key file"},
		{"CA of no certificates", tlsconf.Files{CA: junk, Cert: good.Cert, Key: good.Key}, junk, "no CA certificate"},
		{"certificate of no PEM", tlsconf.Files{CA: good.CA, Cert: junk, Key: good.Key}, junk, "PEM"},
		{"another's key", tlsconf.Files{CA: good.CA, Cert: good.Cert, Key: second.Key}, good.Cert, second.Key},
		{"key open to others", tlsconf.Files{CA: good.CA, Cert: good.Cert, Key: open}, open, "0644"},
		{"several", tlsconf.Files{CA: junk, Cert: junk + "x", Key: junk + "y"}, junk,
			junk + ": holds no CA certificate in PEM form; " + junk + "x: read certificate file: no such file or directory; " + junk + "y: read key file: no such file or directory"},
		{"another CA", tlsconf.Files{CA: other.CertFile, Cert: good.Cert, Key: good.Key}, good.Cert, other.CertFile},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := tlsconf.Load(tc.files)
			require.ErrorContains(t, err, tc.says)
			if tc.path != "" {
				var fe *tlsconf.FileError
				require.ErrorAs(t, err, &fe)
				require.Equal(t, tc.path, fe.Path)
			}
		})
	}
}
