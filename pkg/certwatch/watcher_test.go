package certwatch_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/logd-io/logd/pkg/certwatch"
	"github.com/logd-io/logd/pkg/tlsconf"
	"github.com/logd-io/logd/pkg/tlsconf/tlstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// buffer is a log.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) count(line string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.b.String(), line)
}

// watched is a running watcher of files that can be changed.
type watched struct {
	t     *testing.T
	ca    *tlstest.CA
	files tlsconf.Files
	src   *tlsconf.Source
	reg   *prometheus.Registry
	log   *buffer
	*certwatch.Watcher
}

// watch runs in a bubble of fake time, which begins before its certificates do.
func watch(t *testing.T) *watched {
	t.Helper()
	w := &watched{t: t, ca: tlstest.NewCA(t, "prod"), reg: prometheus.NewRegistry(), log: new(buffer)}
	made := w.ca.Files(t, tlsconf.RoleStorage, "n1")
	dir := t.TempDir()
	w.files = tlsconf.Files{CA: filepath.Join(dir, "ca.pem"), Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	w.put(made)
	var err error
	w.src, err = tlsconf.Load(w.files)
	require.NoError(t, err)
	w.Watcher, err = certwatch.New(certwatch.Config{
		Source: w.src, Setting: "tls", Registerer: w.reg,
		Logger: hclog.New(&hclog.LoggerOptions{Output: w.log, Level: hclog.Info}),
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1) // Run's result
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() { cancel(); require.NoError(t, <-done) })
	return w
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return b
}

// put writes what f names to where w looks.
func (w *watched) put(f tlsconf.Files) {
	w.t.Helper()
	w.write(w.files.CA, read(w.t, f.CA))
	w.write(w.files.Cert, read(w.t, f.Cert))
	w.write(w.files.Key, read(w.t, f.Key))
}

func (w *watched) write(path string, text []byte) {
	w.t.Helper()
	require.NoError(w.t, os.WriteFile(path, text, 0o600))
}

// later lets everything happen that does in half a minute.
func (w *watched) later() {
	time.Sleep(30 * time.Second)
	synctest.Wait()
}

func (w *watched) serial() string {
	leaf, _ := w.src.Certificates()
	return leaf.SerialNumber.String()
}

func (w *watched) reloads(loaded, failed int) {
	w.t.Helper()
	const name = "logd_tls_reloads_total"
	require.NoError(w.t, testutil.GatherAndCompare(w.reg, strings.NewReader(
		"# HELP "+name+" Changes of the certificate files that were taken, or not.\n# TYPE "+name+" counter\n"+
			name+`{result="failed",setting="tls"} `+digits(failed)+"\n"+
			name+`{result="loaded",setting="tls"} `+digits(loaded)+"\n"), name))
}

func digits(n int) string { return string(rune('0' + n)) }

func TestFilesThatChangeAreLoaded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t)
		before := w.serial()
		w.later()
		w.reloads(0, 0)
		w.put(w.ca.Files(t, tlsconf.RoleStorage, "n1"))
		w.later()
		require.NotEqual(t, before, w.serial())
		w.reloads(1, 0)
		leaf, ca := w.src.Certificates()
		found, err := w.reg.Gather()
		require.NoError(t, err)
		for _, f := range found {
			if f.GetName() == "logd_tls_not_after_seconds" {
				require.Equal(t, float64(ca.NotAfter.Unix()), f.GetMetric()[0].GetGauge().GetValue())
				require.Equal(t, float64(leaf.NotAfter.Unix()), f.GetMetric()[1].GetGauge().GetValue())
			}
		}
	})
}

// Kubernetes writes a new folder and swaps the link to it.
func TestFilesBehindALinkThatIsSwapped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t)
		dir := filepath.Dir(w.files.CA)
		version := func(name string) {
			require.NoError(t, os.Mkdir(filepath.Join(dir, name), 0o700))
			f := w.ca.Files(t, tlsconf.RoleStorage, "n1")
			for path, from := range map[string]string{w.files.CA: f.CA, w.files.Cert: f.Cert, w.files.Key: f.Key} {
				w.write(filepath.Join(dir, name, filepath.Base(path)), read(t, from))
			}
			require.NoError(t, os.Symlink(name, filepath.Join(dir, "..new")))
			require.NoError(t, os.Rename(filepath.Join(dir, "..new"), filepath.Join(dir, "..data")))
		}
		version("..1")
		for _, path := range []string{w.files.CA, w.files.Cert, w.files.Key} {
			require.NoError(t, os.Remove(path))
			require.NoError(t, os.Symlink(filepath.Join("..data", filepath.Base(path)), path))
		}
		w.later()
		first := w.serial()
		version("..2")
		w.later()
		require.NotEqual(t, first, w.serial())
		w.reloads(2, 0)
	})
}

// Whatever is wrong with a set, the one before stays in use, and it is said once.
func TestSetThatDoesNotLoad(t *testing.T) {
	for name, spoil := range map[string]func(w *watched){
		"gone":               func(w *watched) { require.NoError(w.t, os.Remove(w.files.Cert)) },
		"empty":              func(w *watched) { w.write(w.files.CA, nil) },
		"half a certificate": func(w *watched) { b := read(w.t, w.files.Cert); w.write(w.files.Cert, b[:len(b)/2]) },
		"half a key":         func(w *watched) { b := read(w.t, w.files.Key); w.write(w.files.Key, b[:len(b)/2]) },
		"another's key":      func(w *watched) { w.write(w.files.Key, read(w.t, w.ca.Files(w.t, tlsconf.RoleStorage, "n1").Key)) },
		"another CA":         func(w *watched) { w.write(w.files.CA, read(w.t, tlstest.NewCA(w.t, "prod").CertFile)) },
		"another holder":     func(w *watched) { w.put(w.ca.Files(w.t, tlsconf.RoleStorage, "n2")) },
		"another role":       func(w *watched) { w.put(w.ca.Files(w.t, tlsconf.RoleClient, "n1")) },
		"a key for everybody": func(w *watched) {
			w.put(w.ca.Files(w.t, tlsconf.RoleStorage, "n1"))
			require.NoError(w.t, os.Chmod(w.files.Key, 0o644))
		},
		"half a second CA": func(w *watched) {
			b := read(w.t, tlstest.NewCA(w.t, "prod").CertFile)
			w.write(w.files.CA, append(read(w.t, w.files.CA), b[:len(b)/2]...))
		},
		"expired": func(w *watched) {
			w.put(w.ca.Sign(w.t, &x509.Certificate{
				URIs:      []*url.URL{(tlsconf.Identity{Cluster: "prod", Role: tlsconf.RoleStorage, Name: "n1"}).URI()},
				NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour),
			}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := watch(t)
				before := w.serial()
				good := w.ca.Files(t, tlsconf.RoleStorage, "n1")
				spoil(w)
				w.later()
				w.later()
				require.Equal(t, before, w.serial())
				w.reloads(0, 1)
				require.Equal(t, 1, w.log.count("certificates kept as they were"))

				require.NoError(t, os.Chmod(w.files.Key, 0o600))
				w.put(good)
				w.later()
				require.NotEqual(t, before, w.serial())
				w.reloads(1, 1)
			})
		})
	}
}

// Two files that are replaced one after the other are no set that is wrong.
func TestFilesReplacedOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t)
		before := w.serial()
		next := w.ca.Files(t, tlsconf.RoleStorage, "n1")
		w.write(w.files.Key, read(t, next.Key))
		time.Sleep(3 * time.Second) // a look and a half
		w.write(w.files.Cert, read(t, next.Cert))
		w.later()
		require.NotEqual(t, before, w.serial())
		w.reloads(1, 0)
	})
}

func TestReloadIsDoneAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t)
		before := w.serial()
		w.put(w.ca.Files(t, tlsconf.RoleStorage, "n1"))
		use, err := w.Prepare()
		require.NoError(t, err)
		require.Equal(t, before, w.serial(), "not yet: another part may refuse")
		use()
		require.NotEqual(t, before, w.serial())
		w.later()
		w.reloads(1, 0)
	})
}

// A key that others could read is taken once they no longer can: its content is
// the same then.
func TestWhatWasWrongIsNotInTheFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t)
		before := w.serial()
		w.put(w.ca.Files(t, tlsconf.RoleStorage, "n1"))
		require.NoError(t, os.Chmod(w.files.Key, 0o644))
		w.later()
		require.Equal(t, before, w.serial())
		require.NoError(t, os.Chmod(w.files.Key, 0o600))
		w.later()
		require.NotEqual(t, before, w.serial())
		w.reloads(1, 1)
	})
}

func TestCertificateThatEndsSoonIsToldDaily(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t)
		const line = "the certificate ends soon"
		w.later()
		require.Zero(t, w.log.count(line))
		w.put(w.ca.Sign(t, &x509.Certificate{
			URIs:      []*url.URL{(tlsconf.Identity{Cluster: "prod", Role: tlsconf.RoleStorage, Name: "n1"}).URI()},
			NotBefore: time.Now().Add(-6 * 24 * time.Hour), NotAfter: time.Now().Add(30 * time.Hour),
		}))
		w.later()
		require.Equal(t, 1, w.log.count(line))
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		require.Equal(t, 2, w.log.count(line))
		w.put(w.ca.Files(t, tlsconf.RoleStorage, "n1"))
		w.later()
		w.later()
		require.Equal(t, 2, w.log.count(line))
	})
}
