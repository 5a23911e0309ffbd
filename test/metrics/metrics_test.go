// Package metrics_test holds the promises about metrics: that docs/ops/metrics.md
// lists what a running node and a running proxy have, that names follow the rules,
// and that nobody makes up series.
package metrics_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/devcluster"
	"github.com/logd-io/logd/pkg/telemetry"
)

var update = flag.Bool("update", false, "write what docs/ops/metrics.md lists; when to worry is for you to say")

const (
	page  = "../../docs/ops/metrics.md"
	bound = 2 * time.Minute // a machine that hangs, not a claim
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// memberlist does not wait for these two at its end; they end by themselves.
		goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"),
		goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.newSuspicion.func1"))
}

// family is one metric as the page shows it.
type family struct {
	in            map[string]bool // programs
	kind, meaning string
	labels        []string
}

// gather runs a cluster with some traffic and collects what its leader and its proxy
// have: by name, and as they are scraped.
func gather(t *testing.T) (map[string]*family, map[string][]*dto.MetricFamily) {
	t.Helper()
	registries := map[string]*prometheus.Registry{}
	program := func(name string) string {
		if strings.HasPrefix(name, "node") {
			return "logd"
		}
		return "logproxy"
	}
	c, err := devcluster.Start(devcluster.Options{
		AnyPort: true, Heartbeat: time.Second,
		Registry: func(name string) *prometheus.Registry {
			reg := telemetry.NewRegistry(program(name), telemetry.ReadBuild("v0"))
			sink, err := telemetry.NewSink(program(name), reg)
			require.NoError(t, err)
			if len(registries) == 0 { // go-metrics knows one of a process
				require.NoError(t, sink.InstallGlobal())
			}
			registries[name] = reg
			return reg
		},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	ctx, done := context.WithTimeout(t.Context(), bound)
	defer done()
	conn, err := grpc.NewClient(c.Proxy(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	log := logv1.NewLogClient(conn)
	for range 3 {
		_, err := log.Produce(ctx, &logv1.ProduceRequest{Record: &logv1.Record{Value: []byte("x")}}, grpc.WaitForReady(true))
		require.NoError(t, err)
		_, err = log.Consume(ctx, &logv1.ConsumeRequest{})
		require.NoError(t, err)
	}
	tail, cancel := context.WithCancel(ctx)
	s, err := log.ConsumeStream(tail, &logv1.ConsumeRequest{})
	require.NoError(t, err)
	_, err = s.Recv()
	require.NoError(t, err)
	cancel()

	var leader string
	require.Eventually(t, func() bool {
		l := c.Leader()
		if l == nil {
			return false
		}
		leader = l.Name
		families, err := registries[leader].Gather()
		return err == nil && slices.ContainsFunc(families, func(f *dto.MetricFamily) bool { return f.GetName() == "logd_peer_lag_entries" })
	}, bound, 50*time.Millisecond, "autopilot has looked at the others")

	all := map[string]*family{}
	scraped := map[string][]*dto.MetricFamily{}
	for name, reg := range registries {
		if name != leader && program(name) == "logd" && name != "node1" { // node1 has what raft and serf report
			continue
		}
		families, err := reg.Gather()
		require.NoError(t, err)
		kinds := map[string]string{}
		for _, f := range families {
			kinds[f.GetName()] = strings.ToLower(f.GetType().String())
		}
		scraped[name] = families
		for _, d := range descs(reg) {
			if strings.HasPrefix(d.name, "go_") || strings.HasPrefix(d.name, "process_") {
				continue
			}
			f := all[d.name]
			if f == nil {
				f = &family{in: map[string]bool{}, meaning: d.help, labels: d.labels}
				all[d.name] = f
			}
			f.in[program(name)] = true
			if k := kinds[d.name]; k != "" {
				f.kind = k
			} else if f.kind == "" {
				f.kind = guess(d.name)
			}
		}
	}
	return all, scraped
}

// guess is the kind of a metric that has no value yet.
func guess(name string) string {
	switch {
	case strings.HasSuffix(name, "_total"):
		return "counter"
	case strings.HasSuffix(name, "_duration_seconds"):
		return "histogram"
	}
	return "gauge"
}

type desc struct {
	name, help string
	labels     []string
}

var descPattern = regexp.MustCompile(`^Desc\{fqName: "([^"]+)", help: "(.*?)"(?:, unit: "[^"]*")?, constLabels: \{(.*)\}, variableLabels: \{(.*)\}\}$`)

// descs are all that the registry may show, those without a value too.
func descs(reg *prometheus.Registry) (all []desc) {
	ch := make(chan *prometheus.Desc)
	go func() {
		reg.Describe(ch)
		close(ch)
	}()
	seen := map[string]bool{}
	for d := range ch {
		m := descPattern.FindStringSubmatch(d.String())
		if m == nil || seen[m[1]] {
			continue
		}
		seen[m[1]] = true
		x := desc{name: m[1], help: m[2]}
		for part := range strings.SplitSeq(m[3]+","+m[4], ",") {
			if name, _, _ := strings.Cut(strings.TrimSpace(part), "="); name != "" {
				x.labels = append(x.labels, name)
			}
		}
		slices.Sort(x.labels)
		all = append(all, x)
	}
	return all
}

func TestThePageListsWhatThereIs(t *testing.T) {
	all, _ := gather(t)
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	head, rows := split(string(text))
	worry := map[string]string{}
	for _, r := range rows {
		cells := strings.Split(r, " | ")
		require.Len(t, cells, 6, "a row of %s: %s", page, r)
		name := strings.Trim(cells[0], "|` ")
		worry[name] = strings.TrimSuffix(strings.TrimSpace(cells[5]), " |")
		require.Contains(t, all, name, "%s lists a metric that is gone; go test ./test/metrics -update", page)
	}
	var b strings.Builder
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		f := all[name]
		in := "both"
		switch {
		case !f.in["logproxy"]:
			in = "logd"
		case !f.in["logd"]:
			in = "logproxy"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s |\n", name, in, f.kind, strings.Join(f.labels, ", "), strings.ReplaceAll(f.meaning, "|", "\\|"), worry[name])
	}
	want := head + b.String()
	if *update {
		require.NoError(t, os.WriteFile(page, []byte(want), 0o644))
		text = []byte(want)
	}
	require.Equal(t, want, string(text), "go test ./test/metrics -update writes it")
	for _, name := range names {
		require.NotEmpty(t, worry[name], "%s: say in %s when to worry, or that one need not (–)", name, page)
	}
}

// split is the page up to the rows of its table, and those.
func split(text string) (head string, rows []string) {
	const bar = "|---|---|---|---|---|---|\n"
	at := strings.Index(text, bar) + len(bar)
	for line := range strings.SplitSeq(strings.TrimSpace(text[at:]), "\n") {
		if line != "" {
			rows = append(rows, line)
		}
	}
	return text[:at], rows
}

// labels that may be used, and what bounds them. One that is not here is a question
// of how many values it can have.
var labels = map[string]string{
	"action": "of authz", "certificate": "leaf and ca", "code": "of gRPC", "grpc_code": "of gRPC", "grpc_method": "of our services, or other",
	"grpc_service": "ours, or other", "grpc_type": "four, or other", "goversion": "one", "limit": "four", "source": "four", "why": "four", "method": "of our services, or other",
	"outcome": "of throttle", "peer": "nodes of the Raft configuration", "reason": "of control", "result": "two or three", "revision": "one", "role": "two", "setting": "tls, upstream.tls, listener.tls",
	"state": "three", "upstream": "nodes in the table, and at most 64", "verdict": "three", "version": "one",
}

func TestNamesFollowTheRules(t *testing.T) {
	all, scraped := gather(t)
	for who, families := range scraped {
		var text bytes.Buffer
		for _, f := range families {
			_, err := expfmt.MetricFamilyToText(&text, f)
			require.NoError(t, err)
		}
		problems, err := promlint.New(&text).Lint()
		require.NoError(t, err)
		for _, p := range problems {
			if !strings.HasPrefix(p.Metric, "go_") && !strings.HasPrefix(p.Metric, "process_") { // the library's
				t.Errorf("%s: %s: %s", who, p.Metric, p.Text)
			}
		}
	}
	prefix := regexp.MustCompile(`^(logd|logproxy|grpc_server|grpc_client)_[a-z0-9_]+$`)
	for name, f := range all {
		if !prefix.MatchString(name) {
			t.Errorf("%s: a prefix that is not ours", name)
		}
		if (f.kind == "counter") != strings.HasSuffix(name, "_total") {
			t.Errorf("%s is a %s: counters, and only they, end in _total", name, f.kind)
		}
		if regexp.MustCompile(`_(ms|millis|milliseconds|micros|ns|mb|kb|kib|mib|percent|ratio_percent)(_|$)`).MatchString(name) {
			t.Errorf("%s: not a base unit", name)
		}
		if !strings.HasSuffix(f.meaning, ".") || strings.Contains(f.meaning, " | ") {
			t.Errorf("%s: the help is a sentence: %q", name, f.meaning)
		}
		if strings.HasPrefix(name, "logproxy_") && f.in["logd"] {
			t.Errorf("%s: of a proxy's name, and on a node", name)
		}
		for _, l := range f.labels {
			if labels[l] == "" {
				t.Errorf("%s: label %s is not among those whose values are known to be bounded", name, l)
			}
		}
	}
}

// What the design promises by name.
func TestNothingPromisedIsMissing(t *testing.T) {
	all, _ := gather(t)
	for what, names := range map[string]string{
		"calls of clients":     "grpc_server_started_total grpc_server_handled_total grpc_server_msg_received_total grpc_server_msg_sent_total grpc_server_handling_seconds",
		"calls to nodes":       "grpc_client_started_total grpc_client_handled_total grpc_client_msg_received_total grpc_client_msg_sent_total grpc_client_handling_seconds",
		"requests":             "logproxy_requests_total logproxy_request_duration_seconds",
		"upstreams":            "logproxy_upstream_in_flight logproxy_upstream_healthy logproxy_upstream_is_leader logproxy_upstream_lag_records",
		"retries":              "logproxy_forward_append_retries_total logproxy_forward_read_retries_total",
		"holds":                "logproxy_forward_holds_total logproxy_forward_held_records_total",
		"resumes and stalls":   "logproxy_forward_stream_resumes_total logproxy_forward_stream_stalls_total",
		"session waits":        "logproxy_forward_session_behind_total",
		"coalesced batch size": "logproxy_forward_batch_records",
		"offsets":              "logd_replica_visible_offset logd_replica_lowest_offset",
		"bytes and segments":   "logd_replica_retained_bytes logd_commitlog_segments",
		"durations":            "logd_commitlog_sync_seconds logd_commitlog_append_seconds logd_replica_append_seconds",
		"batch size":           "logd_replica_batch_records logd_replica_entry_bytes",
		"raft":                 "logd_replica_term logd_replica_leader logd_replica_commit_index logd_replica_applied_index logd_replica_leader_changes_total logd_peer_lag_entries",
		"members":              "logd_gossip_members logd_replica_voters",
		"certificates":         "logd_tls_not_after_seconds",
		"build":                "logd_build_info logproxy_build_info",
		"last reload":          "logd_tls_last_reload_timestamp_seconds logd_acl_last_reload_timestamp_seconds",
	} {
		for name := range strings.FieldsSeq(names) {
			require.Contains(t, all, name, what)
		}
	}
}
