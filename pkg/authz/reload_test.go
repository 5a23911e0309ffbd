package authz_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	promtest "github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/authz"
	"github.com/logd-io/logd/pkg/internal/testutil"
)

// alone is a policy that lets one produce.
func alone(name string) string { return "p, " + name + ", *, produce\n" }

// watched is an Authorizer that runs in a bubble.
type watched struct {
	*authz.Authorizer
	files
	log *testutil.Log
	reg *prometheus.Registry
}

// watch runs test with files that are looked at, in a time of its own.
func watch(t *testing.T, policy string, test func(t *testing.T, w *watched)) {
	synctest.Test(t, func(t *testing.T) {
		w := &watched{files: write(t, "", policy), log: new(testutil.Log), reg: prometheus.NewRegistry()}
		a, err := authz.Open(authz.Options{
			Files: w.Files, Registerer: w.reg, Logger: hclog.New(&hclog.LoggerOptions{Output: w.log, Level: hclog.Info}),
		})
		require.NoError(t, err)
		w.Authorizer = a
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = a.Run(ctx) }()
		test(t, w)
		cancel()
		synctest.Wait()
	})
}

// later is after the files have been looked at n times.
func (w *watched) later(n int) {
	time.Sleep(time.Duration(n) * time.Second)
	synctest.Wait()
}

func (w *watched) may(name string) bool { return may(w.Authorizer, named("client", name), produce) }

func (w *watched) metric(t *testing.T, name string) (v float64) {
	t.Helper()
	all, err := w.reg.Gather()
	require.NoError(t, err)
	for _, f := range all {
		for _, m := range f.GetMetric() {
			labels := ""
			for _, l := range m.GetLabel() {
				labels += " " + l.GetValue()
			}
			if f.GetName()+labels == name {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestNewFilesComeInForce(t *testing.T) {
	watch(t, alone("alice"), func(t *testing.T, w *watched) {
		grant, err := w.Check(named("client", "alice"), produce)
		require.NoError(t, err)
		require.False(t, w.may("bob"))
		w.later(3)
		require.False(t, closed(grant.Changed()), "nothing has changed")

		w.policy(alone("bob"))
		w.later(3)
		require.True(t, w.may("bob"), "the old decision is remembered")
		require.False(t, w.may("alice"), "the old decision is remembered")
		require.True(t, closed(grant.Changed()))
		_, err = w.Renew(grant)
		require.EqualError(t, err, "/log.v1.Log/Produce: alice may not produce")
		require.InDelta(t, 1, w.metric(t, "logd_acl_reloads_total ok"), 0)
		require.InDelta(t, 3, w.metric(t, "logd_acl_denied_total produce"), 0)
		require.Equal(t, 1, strings.Count(w.log.String(), "new acl files are in force"))
	})
}

func TestABadFileKeepsTheOldRules(t *testing.T) {
	watch(t, alone("alice"), func(t *testing.T, w *watched) {
		grant, err := w.Check(named("client", "alice"), produce)
		require.NoError(t, err)
		for i, bad := range []string{"", alone("bob") + "p, carol, *, pro", "p, bob\n"} {
			w.policy(bad)
			w.later(5)
			require.True(t, w.may("alice"), "%q", bad)
			require.False(t, w.may("bob"), "%q", bad)
			require.InDelta(t, 1, w.metric(t, "logd_acl_reload_failing"), 0)
			require.InDelta(t, i+1, w.metric(t, "logd_acl_reloads_total failed"), 0, "told once")
			require.Equal(t, i+1, strings.Count(w.log.String(), "[ERROR]"), "told once")
		}
		require.NoError(t, os.Remove(w.Policy))
		w.later(5)
		require.True(t, w.may("alice"))
		require.InDelta(t, 4, w.metric(t, "logd_acl_reloads_total failed"), 0)
		require.ErrorIs(t, w.Reload(), os.ErrNotExist, "an order is answered")
		require.InDelta(t, 5, w.metric(t, "logd_acl_reloads_total failed"), 0)
		require.False(t, closed(grant.Changed()))

		w.policy(alone("alice"))
		w.later(5)
		require.InDelta(t, 0, w.metric(t, "logd_acl_reload_failing"), 0, "it is as it was")
		require.False(t, closed(grant.Changed()))
		w.policy(alone("bob"))
		w.later(5)
		require.True(t, w.may("bob"))
	})
}

// A file that is being written in place is not read half: it would load, and shut
// out whoever stands in the other half.
func TestAFileIsLeftUntilItIsWritten(t *testing.T) {
	watch(t, alone("alice"), func(t *testing.T, w *watched) {
		text := alone("bob")
		for range 10 {
			w.policy(text)
			w.later(1)
			require.False(t, w.may("bob"), "the file was not whole yet")
			text += alone("carol")
		}
		w.policy(text + alone("alice"))
		w.later(3)
		require.True(t, w.may("bob"))
		require.True(t, w.may("alice"))
		require.InDelta(t, 1, w.metric(t, "logd_acl_reloads_total ok"), 0)
	})
}

func TestAnOrderIsAtOnce(t *testing.T) {
	watch(t, alone("alice"), func(t *testing.T, w *watched) {
		w.policy(alone("bob"))
		require.NoError(t, w.Reload())
		require.True(t, w.may("bob"))
	})
	require.NoError(t, authz.ByRole().Reload(), "there is nothing to reload")
}

// Kubernetes mounts a ConfigMap as links to links, and turns one of them.
func TestLinksThatAreTurned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		for name, who := range map[string]string{"one": "alice", "two": "bob"} {
			require.NoError(t, os.Mkdir(filepath.Join(dir, name), 0o700))
			require.NoError(t, os.WriteFile(filepath.Join(dir, name, "policy.csv"), []byte(alone(who)), 0o600))
		}
		require.NoError(t, os.Symlink("one", filepath.Join(dir, "..data")))
		file := filepath.Join(dir, "policy.csv")
		require.NoError(t, os.Symlink("..data/policy.csv", file))
		a, err := authz.Open(authz.Options{Files: authz.Files{Policy: file}})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = a.Run(ctx) }()
		require.NoError(t, os.Symlink("two", filepath.Join(dir, "..tmp")))
		require.NoError(t, os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")))
		time.Sleep(3 * time.Second)
		synctest.Wait()
		require.True(t, may(a, named("client", "bob"), produce))
		require.False(t, may(a, named("client", "alice"), produce))
	})
}

// Whoever is told that the rules have changed, or was let in while they did, ends up
// with the new ones: a grant that outlives its rules always hears of it.
func TestReloadsRaceCalls(t *testing.T) {
	f := write(t, "", alone("alice"))
	a, err := authz.Open(authz.Options{Files: f.Files})
	require.NoError(t, err)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for !closed(stop) {
				var g authz.Grant
				var err error
				for g, err = a.Check(named("client", "alice"), produce); err == nil; g, err = a.Renew(g) {
					select {
					case <-g.Changed():
						continue
					case <-stop:
						return
					}
				}
			}
		})
	}
	for i := range 300 {
		if i%2 == 0 {
			f.policy(alone("bob"))
		} else {
			f.policy(alone("alice"))
		}
		require.NoError(t, a.Reload())
		require.Equal(t, i%2 == 1, may(a, named("client", "alice"), produce), "the old rules were in force after Reload")
	}
	close(stop)
	wg.Wait()
}

func TestWithoutFilesItIsSaidOnce(t *testing.T) {
	var log bytes.Buffer
	reg := prometheus.NewRegistry()
	a, err := authz.Open(authz.Options{Registerer: reg, Logger: hclog.New(&hclog.LoggerOptions{Output: &log})})
	require.NoError(t, err)
	require.True(t, may(a, named("client", "anybody"), produce))
	require.False(t, may(a, named("client", "anybody"), "/node.v1.Node/Join"))
	require.Equal(t, 1, strings.Count(log.String(), "[WARN]"), log.String())
	problems, err := promtest.GatherAndLint(reg)
	require.NoError(t, err)
	require.Empty(t, problems)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, a.Run(ctx))
}
