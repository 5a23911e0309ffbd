package e2e_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/tlsconf"
	"github.com/logd-io/logd/test/harness"
)

// TestCertificatesRotateUnderLoad replaces every certificate of a cluster and its
// proxy, and then the CA: a bundle of both everywhere, new certificates, the new CA
// alone. Clients notice nothing, and at the end the old CA is worth nothing.
func TestCertificatesRotateUnderLoad(t *testing.T) {
	t.Parallel()
	w := prepare(t, nil, func(o *harness.Options) {
		// Connections are made anew all the time, so that each step is met by some.
		o.NodeConfig += "limits { connection_age = \"1s\" }\n"
	})
	gateway, err := w.AddProxy("")
	require.NoError(t, err)
	g := w.Cert(gateway.Name)
	listener := filepath.Join(t.TempDir(), "listener.hcl")
	replaceFile(t, listener, fmt.Sprintf("listener {\n  tls {\n    ca_file = %q\n    cert_file = %q\n    key_file = %q\n  }\n}\n", g.CA, g.Cert, g.Key))
	gateway.Args = append(gateway.Args, "-config", listener)
	require.NoError(t, w.Start())
	require.NoError(t, w.Ready(w.ctx))
	tr := w.load()
	visitors := w.visit(gateway)
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
			for _, x := range w.tlsSettings(gateway) {
				if n := w.gauge(x.admin, fmt.Sprintf(`logd_tls_reloads_total{result="loaded",setting=%q}`, x.setting)); n < reloads {
					return fmt.Errorf("%s has reloaded %s %.0f times of %.0f", x.admin, x.setting, n, reloads)
				}
				require.Zero(t, w.gauge(x.admin, fmt.Sprintf(`logd_tls_reloads_total{result="failed",setting=%q}`, x.setting)), x.admin)
			}
			return nil
		})
		visitors.more(20)
		t.Logf("%s: %d records so far", what, tr.Acked())
		tr.more(500)
	}
	renew := func(by tlsconf.CAParams) {
		for i, n := range w.Nodes {
			w.issue(by, tlsconf.RoleStorage, n.Name, w.Host(i+1))
		}
		for i, p := range w.Proxy {
			w.issue(by, tlsconf.RoleProxy, p.Name, w.Host(101+i))
		}
	}
	step("new certificates", false, func() { renew(oldCA) })
	step("both CAs", true, func() { replaceFile(t, files.CA, oldPEM+newPEM) })
	step("certificates of the new CA", false, func() { renew(ca) })
	w.issue(ca, tlsconf.RoleAdmin, "admin", "127.0.0.1")
	w.issue(ca, tlsconf.RoleClient, "client", "127.0.0.1")
	visitors.more(20) // with the client's new one
	step("the new CA alone", true, func() { replaceFile(t, files.CA, newPEM) })

	// All between nodes begins anew as well.
	leader := w.leader()
	require.NoError(t, leader.Kill())
	require.NoError(t, leader.Start())
	require.NoError(t, w.Ready(w.ctx))
	tr.more(500)
	for _, n := range w.Nodes {
		require.ErrorContains(t, w.refusal(n.RPC, old), "unknown certificate authority", n.Name)
	}
	require.ErrorContains(t, w.refusal(gateway.Addr, old), "unknown certificate authority")
	visitors.more(20)
	visitors.finish()
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

// tlsSetting is where a process has certificates.
type tlsSetting struct{ admin, setting string }

func (w *world) tlsSettings(gateway *harness.Proxy) (all []tlsSetting) {
	for _, n := range w.Nodes {
		all = append(all, tlsSetting{n.Admin, "tls"})
	}
	for _, p := range w.Proxy {
		all = append(all, tlsSetting{p.Admin, "upstream.tls"})
	}
	return append(all, tlsSetting{gateway.Admin, "listener.tls"})
}

func (w *world) everybody() (all []*harness.Process) {
	for _, n := range w.Nodes {
		all = append(all, n.Process)
	}
	for _, p := range w.Proxy {
		all = append(all, p.Process)
	}
	return all
}

// visitors come to a gateway one after the other, each with a connection of its
// own and the certificate that the client has by then.
type visitors struct {
	w      *world
	served atomic.Int64
	wrong  chan error // the first error; capacity 1: nobody may ask
	stop   context.CancelFunc
	done   chan struct{}
}

func (w *world) visit(gateway *harness.Proxy) *visitors {
	ctx, stop := context.WithCancel(w.ctx)
	v := &visitors{w: w, wrong: make(chan error, 1), stop: stop, done: make(chan struct{})}
	visit := func() error {
		src, err := tlsconf.Load(w.Cert("client"))
		if err != nil {
			return err
		}
		creds := credentials.NewTLS(src.Client(tlsconf.ALPNgRPC, tlsconf.RoleProxy, gateway.Name))
		conn, err := grpc.NewClient("passthrough:///"+gateway.Addr, grpc.WithTransportCredentials(creds))
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = logv1.NewLogClient(conn).GetOffsets(w.ctx, &logv1.GetOffsetsRequest{})
		return err
	}
	go func() { // joined by finish or the cleanup
		defer close(v.done)
		for ctx.Err() == nil {
			// The client's files are replaced one by one, so what it loads may not fit.
			var torn *tlsconf.FileError
			if err := visit(); errors.As(err, &torn) {
				continue
			} else if err != nil {
				v.wrong <- err
				return
			}
			v.served.Add(1)
		}
	}()
	w.t.Cleanup(func() { stop(); <-v.done })
	return v
}

func (v *visitors) more(n int64) {
	v.w.t.Helper()
	want := v.served.Load() + n
	v.w.until("visitors", func() error {
		select {
		case err := <-v.wrong:
			return harness.Ended(fmt.Errorf("a visitor: %w", err))
		default:
		}
		if got := v.served.Load(); got < want {
			return fmt.Errorf("%d of %d", got, want)
		}
		return nil
	})
}

func (v *visitors) finish() {
	v.w.t.Helper()
	v.stop()
	<-v.done
	require.Empty(v.w.t, v.wrong)
}

// refusal is what somebody is told who comes with that certificate and believes
// everybody.
func (w *world) refusal(addr string, f tlsconf.Files) error {
	w.t.Helper()
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	require.NoError(w.t, err)
	conf := &tls.Config{
		InsecureSkipVerify: true, NextProtos: []string{tlsconf.ALPNgRPC},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil },
	}
	conn, err := (&tls.Dialer{Config: conf}).DialContext(w.ctx, "tcp", addr)
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
