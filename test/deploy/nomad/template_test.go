package nomad_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"text/template"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/config"
)

// services are what Nomad knows in templates; two nodes and two proxies.
var services = map[string][]service{
	"logd":           {{"10.0.0.1", 8400}, {"10.0.0.2", 8400}},
	"logd-gossip":    {{"10.0.0.1", 8401}, {"10.0.0.2", 8401}},
	"logd-admin":     {{"10.0.0.1", 8402}, {"10.0.0.2", 8402}},
	"logproxy-admin": {{"10.0.0.1", 23001}, {"10.0.0.2", 23002}},
}

type service struct {
	Address string
	Port    int
}

// render does what the client does with a template, for a host called host.
func render(t *testing.T, text string, vars map[string]map[string]string) string {
	t.Helper()
	tmpl, err := template.New("").Option("missingkey=error").Funcs(template.FuncMap{
		"env": func(name string) (string, error) {
			if name != "node.unique.name" {
				return "", fmt.Errorf("no %q", name)
			}
			return "host", nil
		},
		"nomadVar": func(path string) (map[string]string, error) {
			if vars[path] == nil {
				return nil, fmt.Errorf("no variable at %q", path)
			}
			return vars[path], nil
		},
		"nomadService": func(name string) ([]service, error) {
			if services[name] == nil {
				return nil, fmt.Errorf("no service %q", name)
			}
			return services[name], nil
		},
	}).Parse(text)
	require.NoError(t, err)
	var out bytes.Buffer
	require.NoError(t, tmpl.Execute(&out, nil))
	return out.String()
}

// stored is what docs/ops/nomad.md stores for each job.
func stored(id string) map[string]map[string]string {
	items := map[string]string{"ca": "CA\n", "gossip": "GOSSIP\n", "cert": "CERT\n", "key": "KEY\n", "host": "CERT\n", "host-key": "KEY\n"}
	return map[string]map[string]string{"nomad/jobs/" + id: items}
}

// files are what a task's templates make, by their path in the task, and its
// environment with what they add.
func (p place) files(t *testing.T) (files map[string]string, environ []string) {
	t.Helper()
	files = map[string]string{}
	late := strings.NewReplacer(
		"${node.unique.name}", "host", "${attr.unique.network.ip-address}", "10.0.0.9", "${NOMAD_ADDR_gossip}", "10.0.0.9:23411")
	for name, value := range p.Env {
		value = late.Replace(value)
		require.NotContains(t, value, "${")
		environ = append(environ, name+"="+value)
	}
	for _, tmpl := range p.Templates {
		text := render(t, *tmpl.EmbeddedTmpl, stored(p.id))
		files["/"+*tmpl.DestPath] = text
		if *tmpl.Envvars {
			for line := range strings.Lines(text) {
				environ = append(environ, strings.TrimSpace(line))
			}
		}
	}
	return files, environ
}

// load has the real package config read what the agent would.
func (p place) load(t *testing.T) (node *config.Node, proxy *config.Proxy) {
	t.Helper()
	flags, rest, err := programs.Check(p.argv(t))
	require.NoError(t, err)
	require.Empty(t, rest)
	files, environ := p.files(t)
	from := config.From{Environ: environ}
	for _, path := range flags["config"] {
		require.Contains(t, files, path)
		at := filepath.Join(t.TempDir(), filepath.Base(path))
		require.NoError(t, os.WriteFile(at, []byte(files[path]), 0o600))
		from.Paths = append(from.Paths, at)
	}
	if p.Config["command"] == "logd" {
		n, err := config.LoadNode(from)
		require.NoError(t, err)
		return &n, nil
	}
	x, err := config.LoadProxy(from)
	require.NoError(t, err)
	return nil, &x
}

func TestConfigurationsLoad(t *testing.T) {
	for _, p := range agents(t) {
		node, proxy := p.load(t)
		if node != nil {
			require.Equal(t, "host", node.Name)
			require.Equal(t, "10.0.0.9", node.AdvertiseAddr)
			require.Equal(t, []string{"10.0.0.1:8401", "10.0.0.2:8401"}, node.RetryJoin)
			require.EqualValues(t, node.BootstrapExpect, *p.group.Count)
			continue
		}
		if proxy.UsesGossip() {
			require.Equal(t, []string{"10.0.0.1:8401", "10.0.0.2:8401"}, proxy.Gossip.RetryJoin)
			continue
		}
		require.Equal(t, []config.Discovery{{Kind: "static", Nodes: []string{"10.0.0.1:8400", "10.0.0.2:8400"}}}, proxy.Discovery)
	}
}

// Every file that a configuration names is rendered, keys for the task's user
// alone, and certificates are read again when they change.
func TestSecretsAreRenderedAndReadAgain(t *testing.T) {
	for _, p := range agents(t) {
		node, proxy := p.load(t)
		files, _ := p.files(t)
		var tls config.TLS
		var key string
		if node != nil {
			tls, key = node.TLS, node.GossipKeyFile
		} else {
			tls, key = proxy.Upstream.TLS, proxy.Gossip.KeyFile
		}
		require.Equal(t, "CA", strings.TrimSpace(files[tls.CAFile]))
		require.Equal(t, "CERT", strings.TrimSpace(files[tls.CertFile]))
		require.Equal(t, "KEY", strings.TrimSpace(files[tls.KeyFile]))
		if key != "" {
			require.Equal(t, "GOSSIP", strings.TrimSpace(files[key]))
		}
		for _, tmpl := range p.Templates {
			path := "/" + *tmpl.DestPath
			if path == tls.KeyFile || path == key && key != "" {
				require.Equal(t, "0600", *tmpl.Perms, path)
				require.Equal(t, 65532, *tmpl.Uid, path)
				require.Equal(t, 65532, *tmpl.Gid, path)
			}
			switch path {
			case tls.CAFile, tls.CertFile, tls.KeyFile:
				require.Equal(t, "signal", *tmpl.ChangeMode, path)
				require.Equal(t, "SIGHUP", *tmpl.ChangeSignal, path)
				require.True(t, strings.HasPrefix(path, "/secrets/"), path)
			case key:
				require.Equal(t, "noop", *tmpl.ChangeMode, path)
			}
		}
	}
}
