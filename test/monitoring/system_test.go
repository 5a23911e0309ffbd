//go:build system

package monitoring_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/test/harness"
	"github.com/logd-io/logd/test/monitoring"
)

// program finds Prometheus' programs, installed or where .ci/run unpacks them.
func program(t *testing.T, name string) string {
	t.Helper()
	if tools := os.Getenv("LOGD_TEST_TOOLS"); tools != "" {
		if path, err := exec.LookPath(filepath.Join(tools, name)); err == nil {
			return path
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not here: it is in Debian's package prometheus", name)
	}
	return path
}

func TestSystemPromtoolTakesTheRules(t *testing.T) {
	promtool := program(t, "promtool")
	folder, err := filepath.Abs(filepath.Join(repo, "deploy/prometheus"))
	require.NoError(t, err)
	tests, err := filepath.Glob(filepath.Join(folder, "tests/*.yaml"))
	require.NoError(t, err)
	require.NotEmpty(t, tests)
	for _, args := range [][]string{
		{"check", "config", filepath.Join(folder, "prometheus.yml")},
		{"check", "rules", filepath.Join(folder, "rules.yaml")},
		append([]string{"test", "rules"}, tests...),
	} {
		out, err := exec.CommandContext(t.Context(), promtool, args...).CombinedOutput()
		require.NoError(t, err, "promtool %q:\n%s", args, out)
	}
}

// rightlyEmpty are selectors, or metrics, that need not have a value here, and why.
var rightlyEmpty = map[string]string{
	"logd_gossip_health_score":     "memberlist shows it first when it changes",
	"logproxy_gossip_health_score": "memberlist shows it first when it changes",
	`logproxy_requests_total{method=~".*Stream",code=~"DataLoss|Internal|Unavailable|Unknown"}`: "no stream of this test's fails, and a code that never was has no series",
}

// afterAFailure are the metrics that have no series until a node has gone.
var afterAFailure = []string{"logproxy_watch_failures_total"}

// patience bounds any wait. No claim is made about times.
const patience = 80 * time.Second

// A real Prometheus, with the configuration that is shipped, scrapes a real cluster
// under load: every query of the dashboards has data, every rule is evaluated, nothing
// fires; then a node is killed, and that is seen.
func TestSystemPrometheusSeesTheCluster(t *testing.T) {
	prometheus := program(t, "prometheus")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 3*time.Minute, errors.New("the test took too long"))
	t.Cleanup(cancel)
	bin := t.TempDir()
	out, err := exec.CommandContext(ctx, "go", "build", "-o", bin+"/", "github.com/logd-io/logd/cmd/logd", "github.com/logd-io/logd/cmd/logproxy").CombinedOutput()
	require.NoError(t, err, string(out))
	began := time.Now()

	policy := filepath.Join(t.TempDir(), "policy.csv")
	require.NoError(t, os.WriteFile(policy, []byte(rules), 0o600))
	c, proxy, leader, err := harness.Up(ctx, harness.Options{
		Bin: bin, Dir: t.TempDir(), Heartbeat: time.Second, NodeConfig: fmt.Sprintf("acl {\n  policy = %q\n}\n", policy),
	})
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	require.NoError(t, err)
	work(ctx, t, proxy)

	p := &server{t: t, ctx: ctx, base: "http://" + net.JoinHostPort(c.Host(201), "9090")}
	p.start(prometheus, c, proxy)

	// Everything is scraped.
	p.until("all targets are up", func() error {
		var targets struct {
			ActiveTargets []struct {
				ScrapeURL, Health, LastError string
				Labels                       map[string]string
			}
		}
		if err := p.get("/api/v1/targets", nil, &targets); err != nil {
			return err
		}
		if len(targets.ActiveTargets) != 4 {
			return fmt.Errorf("%d targets", len(targets.ActiveTargets))
		}
		for _, x := range targets.ActiveTargets {
			if x.Health != "up" || x.LastError != "" {
				return fmt.Errorf("%s is %s: %s", x.ScrapeURL, x.Health, x.LastError)
			}
		}
		return nil
	})

	// Every query has data.
	wanting, later := map[asked]bool{}, map[asked]bool{}
	want := func(a asked) {
		asksFor := func(which func(monitoring.Selector) bool) bool {
			return slices.ContainsFunc(monitoring.Selectors(a.expr), which)
		}
		switch {
		case asksFor(func(s monitoring.Selector) bool { return rightlyEmpty[s.String()]+rightlyEmpty[s.Metric] != "" }):
		case asksFor(func(s monitoring.Selector) bool { return slices.Contains(afterAFailure, s.Metric) }):
			later[a] = true
		default:
			wanting[a] = true
		}
	}
	raises := map[string]bool{}
	for _, r := range alerts() {
		raises[r.Expr] = true
	}
	for _, a := range expressions() {
		if !raises[a.expr] {
			want(a)
			continue
		}
		for _, s := range monitoring.Selectors(a.expr) { // an alert itself has no value when all is well
			want(asked{a.place, s.String()})
		}
	}
	require.NotEmpty(t, later)
	for excused := range rightlyEmpty {
		require.True(t, slices.ContainsFunc(expressions(), func(a asked) bool { return strings.Contains(a.expr, excused) }), "nobody asks for %s", excused)
	}
	total := len(wanting) + len(later)
	p.until("every query has data", func() error { return p.lacking(wanting) })
	for _, d := range []monitoring.Dashboard{monitoring.Node(), monitoring.Proxy()} {
		for _, v := range d.Templating.List {
			m := labelValues.FindStringSubmatch(v.Definition)
			if m == nil {
				require.Equal(t, "datasource", v.Type)
				continue
			}
			var choices []string
			require.NoError(t, p.get("/api/v1/label/"+m[2]+"/values", url.Values{"match[]": {ofGrafana.Replace(m[1])}}, &choices))
			require.NotEmpty(t, choices, "%s: nothing to choose from for %s", d.Title, v.Name)
		}
	}
	t.Logf("%d queries had data %s after the cluster was begun", total-len(later), time.Since(began).Round(time.Second))

	// Every rule is evaluated, and there is nothing to be told.
	states := func() map[string]string {
		var found struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError, State string }
			}
		}
		require.NoError(t, p.get("/api/v1/rules", nil, &found))
		all := map[string]string{}
		n := 0
		for _, g := range found.Groups {
			for _, r := range g.Rules {
				n++
				require.Equal(t, "ok", r.Health, "%s: %s", r.Name, r.LastError)
				all[r.Name] = r.State
			}
		}
		rules := 0
		for _, g := range monitoring.Rules() {
			rules += len(g.Rules)
		}
		require.Equal(t, rules, n)
		return all
	}
	p.until("every alert is inactive", func() error {
		for name, state := range states() {
			if state == "firing" {
				return harness.Ended(fmt.Errorf("%s fires", name))
			}
			if state == "pending" && !slices.Contains(ofASlowMachine, name) {
				return fmt.Errorf("%s is pending", name)
			}
		}
		return nil
	})

	// A node is killed. What tells of it has to wait for its time, but is seen.
	require.NoError(t, leader.Kill())
	p.until("the dead node is seen", func() error {
		now := states()
		for _, name := range []string{"LogdNodeDown", "LogdPeerUnhealthy", "LogdGossipMembersMissing", "LogproxyUpstreamUnhealthy"} {
			if now[name] != "pending" {
				return fmt.Errorf("%s is %s", name, now[name])
			}
		}
		return p.lacking(later)
	})
	var told struct {
		Alerts []struct{ Labels, Annotations map[string]string }
	}
	require.NoError(t, p.get("/api/v1/alerts", nil, &told))
	for _, a := range told.Alerts {
		for _, text := range a.Annotations {
			require.NotContains(t, text, "no value", a.Labels["alertname"])
			require.NotContains(t, text, "error", a.Labels["alertname"])
			require.NotContains(t, text, "{{", a.Labels["alertname"])
		}
		if a.Labels["alertname"] == "LogdNodeDown" {
			require.Contains(t, a.Annotations["summary"], leader.Admin)
		}
	}
	t.Logf("all %d had, and the killed node was seen, after %s", total, time.Since(began).Round(time.Second))
}

// ofASlowMachine are alerts that a machine busy with other tests may rightly be near.
var ofASlowMachine = []string{"LogdSyncSlow", "LogdGossipUnhealthy", "LogproxyHolds", "LogdLeaderFlaps"}

// rules let the nodes join, the proxy's clients do everything, and the harness look on.
const rules = `p, nodes, *, join
g, node1, nodes
g, node2, nodes
g, node3, nodes
p, admin, *, admin
p, proxy1, *, impersonate
p, proxy1, *, produce
p, proxy1, *, consume
`

// work is traffic of every kind that the dashboards show.
func work(ctx context.Context, t *testing.T, proxy *harness.Proxy) {
	t.Helper()
	ctx, stop := context.WithCancel(ctx)
	conn, err := harness.Naive(proxy.Addr)
	require.NoError(t, err)
	client := logv1.NewLogClient(conn)
	load := &harness.Load{Producers: 2}
	ended := make(chan struct{}, 3)
	run := func(f func()) {
		go func() { // joined by the cleanup
			defer func() { ended <- struct{}{} }()
			f()
		}()
	}
	run(func() { load.Run(ctx, conn) })
	run(func() { _ = harness.Tail(ctx, conn, 0, func(*logv1.Record) bool { return true }) })
	run(func() { mixed(ctx, client) })
	t.Cleanup(func() {
		stop()
		for range cap(ended) {
			<-ended
		}
		_ = conn.Close()
	})
}

// mixed are calls that are few: reads of sessions, linearizable ones, offsets, and one
// that is refused.
func mixed(ctx context.Context, client logv1.LogClient) {
	session := metadata.AppendToOutgoingContext(ctx, "logd-session", "watched")
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		_, _ = client.Consume(session, &logv1.ConsumeRequest{}, grpc.WaitForReady(true))
		_, _ = client.Consume(ctx, &logv1.ConsumeRequest{Linearizable: true})
		_, _ = client.GetOffsets(ctx, &logv1.GetOffsetsRequest{})
		_, _ = client.Produce(ctx, &logv1.ProduceRequest{Record: &logv1.Record{Value: make([]byte, 1<<20)}}) // a little too large
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// server is a Prometheus.
type server struct {
	t    *testing.T
	ctx  context.Context // of the test, which it lives as long as
	base string
}

// start runs it with the configuration that is shipped: other addresses, a faster pace.
func (p *server) start(path string, c *harness.Cluster, proxy *harness.Proxy) {
	p.t.Helper()
	dir := p.t.TempDir()
	var config map[string]any
	require.NoError(p.t, yaml.Unmarshal([]byte(read(p.t, "deploy/prometheus/prometheus.yml")), &config))
	config["global"] = map[string]any{"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
	admins := map[string][]string{"logproxy": {proxy.Admin}}
	for _, n := range c.Nodes {
		admins["logd"] = append(admins["logd"], n.Admin)
	}
	for _, job := range config["scrape_configs"].([]any) {
		job := job.(map[string]any)
		targets := job["static_configs"].([]any)[0].(map[string]any)
		require.Contains(p.t, admins, job["job_name"])
		targets["targets"] = admins[job["job_name"].(string)]
	}
	text, err := yaml.Marshal(config)
	require.NoError(p.t, err)
	file := filepath.Join(dir, "prometheus.yml")
	require.NoError(p.t, os.WriteFile(file, text, 0o600))
	for _, name := range config["rule_files"].([]any) {
		rules := read(p.t, filepath.Join("deploy/prometheus", name.(string)))
		require.NoError(p.t, os.WriteFile(filepath.Join(dir, name.(string)), []byte(rules), 0o600))
	}
	process := &harness.Process{Name: "prometheus", Path: path, Log: filepath.Join(dir, "prometheus.log"), Args: []string{
		"--config.file=" + file, "--storage.tsdb.path=" + filepath.Join(dir, "data"),
		"--web.listen-address=" + strings.TrimPrefix(p.base, "http://"), "--log.level=warn",
	}}
	require.NoError(p.t, process.Start())
	p.t.Cleanup(func() {
		if process.Running() {
			require.NoError(p.t, process.Kill())
		}
		if p.t.Failed() {
			p.t.Logf("the end of Prometheus' log:\n%s", process.Tail(40))
		}
	})
	p.until("Prometheus is ready", func() error {
		if !process.Running() {
			return harness.Ended(errors.New("it has ended: " + process.Tail(20)))
		}
		_, err := harness.Get(p.ctx, p.base+"/-/ready")
		return err
	})
}

func (p *server) until(what string, ok func() error) {
	p.t.Helper()
	ctx, cancel := context.WithTimeoutCause(p.ctx, patience, fmt.Errorf("waited %s for: %s", patience, what))
	defer cancel()
	require.NoError(p.t, harness.Until(ctx, ok))
}

// get asks Prometheus' API, and decodes the data of the answer.
func (p *server) get(path string, form url.Values, data any) error {
	req, err := http.NewRequestWithContext(p.ctx, http.MethodGet, p.base+path+"?"+form.Encode(), nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var answer struct {
		Status, Error string
		Data          json.RawMessage
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("%s: %s: %w", path, resp.Status, err)
	}
	if answer.Status != "success" {
		return fmt.Errorf("%s: %s: %s", path, form, answer.Error)
	}
	return json.Unmarshal(answer.Data, data)
}

// ofGrafana are its variables, as with All chosen everywhere.
var ofGrafana = strings.NewReplacer("$__rate_interval", "10s", "$cluster", ".*", "$job", ".*", "$instance", ".*")

// values asks how many values that are numbers an expression has.
func (p *server) values(expr string) (n int, err error) {
	var vector struct {
		Result []struct {
			Value [2]any
		}
	}
	if err := p.get("/api/v1/query", url.Values{"query": {ofGrafana.Replace(expr)}}, &vector); err != nil {
		return 0, err
	}
	for _, r := range vector.Result {
		text, _ := r.Value[1].(string)
		if f, err := strconv.ParseFloat(text, 64); err == nil && !math.IsNaN(f) {
			n++
		}
	}
	return n, nil
}

// lacking asks the queries that have not had data yet, and forgets those that have.
func (p *server) lacking(queries map[asked]bool) error {
	var missing []string
	for a := range queries {
		n, err := p.values(a.expr)
		if err != nil {
			return harness.Ended(fmt.Errorf("%s: %w", a.place, err))
		}
		if n > 0 {
			delete(queries, a)
			continue
		}
		missing = append(missing, a.place+": "+a.expr)
	}
	if len(missing) > 0 {
		return fmt.Errorf("%d queries have no data:\n%s", len(missing), strings.Join(missing, "\n"))
	}
	return nil
}

// labelValues is how Grafana is told what to choose from.
var labelValues = regexp.MustCompile(`^label_values\((.+), (\w+)\)$`)
