package e2e_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/tlsconf"
	"github.com/logd-io/logd/test/harness"
)

// TestCertificatesRotateUnderLoad replaces every certificate of a cluster and its
// proxy, and then the CA: a bundle of both everywhere, new certificates, the new CA
// alone. Clients notice nothing, and at the end the old CA is worth nothing.
func TestCertificatesRotateUnderLoad(t *testing.T) {
	w := prepare(t, nil, func(o *harness.Options) {
		// Connections are made anew all the time, so that each step is met by some.
		o.NodeConfig += "limits { connection_age = \"1s\" }\n"
	})
	require.NoError(t, w.Start())
	require.NoError(t, w.Ready(w.ctx))
	tr := w.load()
	tr.more(500)

	old := w.copyOf("admin")
	ca := tlsconf.CAParams{Cluster: "harness", CertFile: filepath.Join(t.TempDir(), "ca.pem"), KeyFile: filepath.Join(t.TempDir(), "ca-key.pem")}
	require.NoError(t, tlsconf.CreateCA(ca))
	files := w.Cert("admin")
	oldCA := tlsconf.CAParams{CertFile: old.CA, KeyFile: filepath.Join(filepath.Dir(files.CA), "ca-key.pem")}
	newPEM, oldPEM := fileText(t, ca.CertFile), fileText(t, old.CA)

	reloads := 0.0
	step := func(what string, hangup bool, change func()) {
		t.Helper()
		change()
		reloads++
		if hangup {
			for _, p := range w.everybody() {
				require.NoError(t, p.Signal(syscall.SIGHUP))
			}
		}
		w.until(what, func() error {
			for _, admin := range w.admins() {
				setting := "tls"
				if admin == w.proxy.Admin {
					setting = "upstream.tls"
				}
				if n := w.gauge(admin, fmt.Sprintf(`logd_tls_reloads_total{result="loaded",setting=%q}`, setting)); n < reloads {
					return fmt.Errorf("%s has reloaded %.0f times of %.0f", admin, n, reloads)
				}
				require.Zero(t, w.gauge(admin, fmt.Sprintf(`logd_tls_reloads_total{result="failed",setting=%q}`, setting)), admin)
			}
			return nil
		})
		t.Logf("%s: %d records so far", what, tr.Acked())
		tr.more(500)
	}
	renew := func(by tlsconf.CAParams) {
		for i, n := range w.Nodes {
			w.issue(by, tlsconf.RoleStorage, n.Name, w.Host(i+1))
		}
		w.issue(by, tlsconf.RoleProxy, w.proxy.Name, w.Host(101))
	}
	step("new certificates", false, func() { renew(oldCA) })
	step("both CAs", true, func() { replaceFile(t, files.CA, oldPEM+newPEM) })
	step("certificates of the new CA", false, func() { renew(ca) })
	w.issue(ca, tlsconf.RoleAdmin, "admin", "127.0.0.1")
	w.issue(ca, tlsconf.RoleClient, "client", "127.0.0.1")
	step("the new CA alone", true, func() { replaceFile(t, files.CA, newPEM) })

	// All between nodes begins anew as well.
	leader := w.leader()
	require.NoError(t, leader.Kill())
	require.NoError(t, leader.Start())
	require.NoError(t, w.Ready(w.ctx))
	tr.more(500)
	for _, n := range w.Nodes {
		require.ErrorContains(t, w.refusal(n, old), "unknown certificate authority", n.Name)
	}
	tr.finish()
	t.Logf("%d records, none failed, the slowest took %s", tr.Acked(), tr.LongestWait())
}

// copyOf keeps the files of a certificate as they are now.
func (w *world) copyOf(name string) tlsconf.Files {
	w.t.Helper()
	dir, f := w.t.TempDir(), w.Cert(name)
	kept := tlsconf.Files{CA: filepath.Join(dir, "ca.pem"), Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	for to, from := range map[string]string{kept.CA: f.CA, kept.Cert: f.Cert, kept.Key: f.Key} {
		replaceFile(w.t, to, fileText(w.t, from))
	}
	return kept
}

// issue replaces the certificate of a process.
func (w *world) issue(by tlsconf.CAParams, role tlsconf.Role, name, host string) {
	w.t.Helper()
	f := w.Cert(name)
	require.NoError(w.t, tlsconf.CreateCert(tlsconf.CertParams{
		CAFile: by.CertFile, CAKeyFile: by.KeyFile, Identity: tlsconf.Identity{Role: role, Name: name},
		DNS: []string{name}, IPs: []net.IP{net.ParseIP(host)}, CertFile: f.Cert, KeyFile: f.Key, Force: true,
	}))
}

// admins are the admin servers of all processes.
func (w *world) admins() (all []string) {
	for _, n := range w.Nodes {
		all = append(all, n.Admin)
	}
	return append(all, w.proxy.Admin)
}

func (w *world) everybody() (all []*harness.Process) {
	for _, n := range w.Nodes {
		all = append(all, n.Process)
	}
	return append(all, w.proxy.Process)
}

// refusal is what a node tells somebody who comes with that certificate and
// believes everybody.
func (w *world) refusal(n *harness.Node, f tlsconf.Files) error {
	w.t.Helper()
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	require.NoError(w.t, err)
	conf := &tls.Config{
		InsecureSkipVerify: true, NextProtos: []string{tlsconf.ALPNgRPC},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil },
	}
	conn, err := (&tls.Dialer{Config: conf}).DialContext(w.ctx, "tcp", n.RPC)
	if err != nil {
		return err
	}
	defer conn.Close()
	require.NoError(w.t, conn.SetDeadline(time.Now().Add(patience)))
	_, err = conn.Read(make([]byte, 1)) // in TLS 1.3 a client learns of it here
	return err
}

func fileText(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(b)
}

// replaceFile puts a whole file in the place of another.
func replaceFile(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path+".new", []byte(text), 0o600))
	require.NoError(t, os.Rename(path+".new", path))
}
