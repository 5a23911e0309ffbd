package telemetry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	hclog "github.com/hashicorp/go-hclog"
	metrics "github.com/hashicorp/go-metrics"
	"github.com/prometheus/client_golang/prometheus"
	promtest "github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/internal/testutil"
	"github.com/logd-io/logd/pkg/telemetry"
)

func TestMain(m *testing.M) { testutil.VerifyMain(m) }

func TestLogger(t *testing.T) {
	var out bytes.Buffer
	logger, err := telemetry.NewLogger(telemetry.LogOptions{Name: "logd", Level: "warn", Format: "json", Output: &out})
	require.NoError(t, err)
	logger.Info("quiet")
	logger.Named("raft").Warn("leader lost", "term", 7)
	var line map[string]any
	require.NoError(t, json.Unmarshal(out.Bytes(), &line), "one line of JSON: %s", out.String())
	require.Equal(t, "logd.raft", line["@module"])
	require.InDelta(t, 7, line["term"], 0)

	_, err = telemetry.NewLogger(telemetry.LogOptions{Level: "loud", Format: "text"})
	require.ErrorContains(t, err, "loud")
	_, err = telemetry.NewLogger(telemetry.LogOptions{Level: "info", Format: "xml"})
	require.ErrorContains(t, err, "xml")
}

type place struct {
	Addr  string
	Inner bool
}

func (p place) String() string { return "node at " + p.Addr }

// raft logs whole nodes, and JSON would show what they are made of.
func TestJSONSpellsWhatHasAName(t *testing.T) {
	for _, format := range []string{"json", "text"} {
		var out bytes.Buffer
		logger, err := telemetry.NewLogger(telemetry.LogOptions{Name: "logd", Level: "debug", Format: format, Output: &out})
		require.NoError(t, err)
		args := []any{
			"node", place{"10.0.0.1", true}, "state", http.StateActive, "took", 1500 * time.Millisecond,
			"nobody", (*url.URL)(nil), "err", errors.New("gone"), "n", 7, "at", time.Unix(0, 0).UTC(),
		}
		before := slices.Clone(args)
		for _, log := range []func(string, ...any){
			logger.Debug, logger.Info, logger.Warn, logger.Error, logger.Named("x").Info, logger.With(args...).Info,
			func(msg string, args ...any) { logger.Log(hclog.Info, msg, args...) },
		} {
			out.Reset()
			log("entering leader state", args...)
			text := out.String()
			for _, want := range []string{"node at 10.0.0.1", "active", "1.5s", "gone", "7", "1970-01-01"} {
				require.Contains(t, text, want, format)
			}
			require.NotContains(t, text, "Inner")
		}
		require.Equal(t, before, args, "they are the caller's")
		out.Reset()
		logger.Trace("not asked for", args...)
		require.Empty(t, out.String())
	}
}

// newBridged is a registry as a main makes it, with something in every bridged
// metric of raft that the test reads.
func newBridged(t *testing.T) (*prometheus.Registry, *metrics.Metrics) {
	t.Helper()
	reg := telemetry.NewRegistry("logd", telemetry.ReadBuild("1.2.3"))
	sink, err := telemetry.NewSink("logd", reg)
	require.NoError(t, err)
	conf := metrics.DefaultConfig("")
	conf.EnableHostname, conf.EnableRuntimeMetrics = false, false
	m, err := metrics.New(conf, sink)
	require.NoError(t, err)
	return reg, m
}

func TestSinkRenamesAndScales(t *testing.T) {
	reg, m := newBridged(t)
	m.IncrCounter([]string{"raft", "state", "leader"}, 1)
	m.SetGauge([]string{"raft", "peers"}, 3)
	m.AddSample([]string{"raft", "commitTime"}, 1500) // ms
	peer := []metrics.Label{{Name: "peer_id", Value: "n1.00000001"}}
	m.IncrCounterWithLabels([]string{"raft", "replication", "appendEntries", "logs"}, 5, peer)
	m.IncrCounter([]string{"raft", "replication", "appendEntries", "logs", "n1"}, 5)
	m.IncrCounter([]string{"serf", "events", "attacker-chosen"}, 1)

	require.NoError(t, promtest.GatherAndCompare(reg, strings.NewReader(`
# HELP logd_raft_append_entries_total Entries sent to a peer.
# TYPE logd_raft_append_entries_total counter
logd_raft_append_entries_total{peer="n1.00000001"} 5
# HELP logd_raft_became_leader_total Times this node became leader.
# TYPE logd_raft_became_leader_total counter
logd_raft_became_leader_total 1
# HELP logd_raft_peers Servers in the Raft configuration.
# TYPE logd_raft_peers gauge
logd_raft_peers 3
`), "logd_raft_append_entries_total", "logd_raft_became_leader_total", "logd_raft_peers"))

	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		require.NotContains(t, f.GetName(), "attacker")
		if f.GetName() == "logd_raft_commit_duration_seconds" {
			require.InDelta(t, 1.5, f.GetMetric()[0].GetHistogram().GetSampleSum(), 1e-9)
		}
	}
}

// Every name follows Prometheus' conventions.
func TestNamesAreLinted(t *testing.T) {
	reg, m := newBridged(t)
	telemetry.TouchAll(m)
	problems, err := promtest.GatherAndLint(reg)
	require.NoError(t, err)
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "go_") || strings.HasPrefix(p.Metric, "process_") {
			continue // the library's
		}
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	n, err := promtest.GatherAndCount(reg)
	require.NoError(t, err)
	require.Greater(t, n, telemetry.Bridged())
}

func TestTwoRegistriesInAProcess(t *testing.T) {
	for range 2 {
		reg := telemetry.NewRegistry("logproxy", telemetry.ReadBuild(""))
		_, err := telemetry.NewSink("logproxy", reg)
		require.NoError(t, err)
		_, err = telemetry.NewSink("logproxy", reg)
		require.Error(t, err, "the same names twice in one registry")
	}
}

type admin struct {
	*telemetry.Admin
	cancel context.CancelFunc
	done   chan error
}

func startAdmin(t *testing.T, o telemetry.AdminOptions) admin {
	t.Helper()
	o.Address = "127.0.0.1:0"
	a, err := telemetry.OpenAdmin(o)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	run := admin{a, cancel, make(chan error, 1)} // 1: Run's result, whenever it is fetched
	go func() { run.done <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		http.DefaultClient.CloseIdleConnections()
	})
	return run
}

func get(t *testing.T, url, host string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	req.Host = host
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, string(body)
}

func TestAdmin(t *testing.T) {
	reasons := make(chan []string, 1) // 1: what the next look at readiness says
	a := startAdmin(t, telemetry.AdminOptions{
		Gatherer: telemetry.NewRegistry("logd", telemetry.ReadBuild("1.2.3")),
		Ready:    func() []string { return <-reasons },
		Status:   func() any { return map[string]any{"leader": "n1"} },
	})
	base := "http://" + a.Addr().String()

	code, body := get(t, base+"/healthz", "")
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, "ok\n", body)

	reasons <- []string{"no leader", "catching up"}
	code, body = get(t, base+"/readyz", "")
	require.Equal(t, http.StatusServiceUnavailable, code)
	require.Equal(t, "no leader\ncatching up\n", body)

	reasons <- nil
	code, body = get(t, base+"/readyz", "")
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, "ready\n", body)

	code, body = get(t, base+"/metrics", "")
	require.Equal(t, http.StatusOK, code)
	require.Contains(t, body, `logd_build_info{`)
	require.Contains(t, body, "go_goroutines")

	code, body = get(t, base+"/api/status", "")
	require.Equal(t, http.StatusOK, code)
	require.JSONEq(t, `{"leader":"n1"}`, body)

	for _, path := range []string{"/api/status", "/", "/debug/pprof/"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+path, nil)
		require.NoError(t, err)
		req.Header.Set("Sec-Fetch-Site", "cross-site")
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Equal(t, http.StatusForbidden, res.StatusCode, "%s for another site's page", path)
	}
	code, _ = get(t, base+"/api/status", "evil.example:80")
	require.Equal(t, http.StatusForbidden, code, "a rebound name")

	for _, path := range []string{"/debug/pprof/", "/debug/pprof/heap", "/", "/api/"} {
		code, _ = get(t, base+path, "")
		require.Equal(t, http.StatusNotFound, code, path)
	}

	a.cancel()
	require.NoError(t, <-a.done)
	_, err := net.DialTimeout("tcp", a.Addr().String(), time.Second)
	require.Error(t, err, "the listener is gone")
	require.NoError(t, a.Close())
	require.NoError(t, a.Close())
}

func TestAdminClosedWithoutRun(t *testing.T) {
	a, err := telemetry.OpenAdmin(telemetry.AdminOptions{Address: "127.0.0.1:0"})
	require.NoError(t, err)
	require.NoError(t, a.Close())
	require.NoError(t, a.Close())
	_, err = net.DialTimeout("tcp", a.Addr().String(), time.Second)
	require.Error(t, err)
}

func TestAdminClosedUnderRun(t *testing.T) {
	a := startAdmin(t, telemetry.AdminOptions{})
	code, _ := get(t, "http://"+a.Addr().String()+"/healthz", "")
	require.Equal(t, http.StatusOK, code)
	require.NoError(t, a.Close())
	require.NoError(t, <-a.done)
}

func TestAdminPortInUseNamesIt(t *testing.T) {
	a, err := telemetry.OpenAdmin(telemetry.AdminOptions{Address: "127.0.0.1:0"})
	require.NoError(t, err)
	defer a.Close()
	_, err = telemetry.OpenAdmin(telemetry.AdminOptions{Address: a.Addr().String()})
	require.ErrorContains(t, err, a.Addr().String())
}
