package config_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/logd-io/logd/config"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var testKey = base64.StdEncoding.EncodeToString(make([]byte, config.GossipKeyLen))

// minimal is the least a node must be told.
var minimal = `
data_dir         = "/data"
bootstrap_expect = 1
gossip_key       = "` + testKey + `"
tls {
  ca_file   = "ca.pem"
  cert_file = "node.pem"
  key_file  = "node.key"
}
`

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func problems(t *testing.T, err error) []string {
	t.Helper()
	var e *config.Error
	require.ErrorAs(t, err, &e)
	var out []string
	for _, p := range e.Problems {
		out = append(out, p.String())
	}
	return out
}

func TestMinimalNodeGetsTheDefaults(t *testing.T) {
	c, err := config.LoadNode(config.From{Paths: []string{write(t, t.TempDir(), "n.hcl", minimal)}})
	require.NoError(t, err)
	want := config.DefaultNode()
	require.Equal(t, "/data", c.DataDir)
	require.Equal(t, want.Ports, c.Ports)
	require.Equal(t, want.Log, c.Log)
	require.Equal(t, "0.0.0.0:8400", c.RPCAddr())
	require.Equal(t, "node.pem", c.TLS.CertFile)
}

func TestJSONSaysTheSame(t *testing.T) {
	path := write(t, t.TempDir(), "n.json", `{
	  "data_dir": "/data", "bootstrap_expect": 1, "gossip_key": "`+testKey+`",
	  "tls": {"ca_file": "ca.pem", "cert_file": "node.pem", "key_file": "node.key"},
	  "raft": {"heartbeat_timeout": "1s"}, "log": {"segment_size": "1MiB"}, "retry_join": ["a:1"]
	}`)
	c, err := config.LoadNode(config.From{Paths: []string{path}})
	require.NoError(t, err)
	require.Equal(t, time.Second, c.Raft.HeartbeatTimeout)
	require.Equal(t, config.MiB, c.Log.SegmentSize)
	require.Equal(t, []string{"a:1"}, c.RetryJoin)
}

func TestProxyFile(t *testing.T) {
	c, err := config.LoadProxy(config.From{Paths: []string{"testdata/proxy.hcl"}})
	require.NoError(t, err)
	network, address := c.Listener.Network()
	require.Equal(t, "unix", network)
	require.Equal(t, "/run/logproxy/log.sock", address)
	require.Equal(t, []config.Discovery{{Kind: "static", Nodes: []string{"127.0.0.1:8400", "127.0.0.2:8400"}}}, c.Discovery)
	require.False(t, c.UsesGossip())
	require.Equal(t, 3*time.Second, c.Produce.HoldTimeout)
	require.Equal(t, 16*config.MiB, c.Produce.MaxHeldBytes)
	require.Equal(t, 10_000, c.Produce.MaxHeld)
	require.Equal(t, 500, c.Limits.MaxConnections)
	require.Equal(t, 256*config.MiB, c.Limits.Memory)
	require.Equal(t, 10_000, c.Limits.MaxCalls)
}

func TestPrecedence(t *testing.T) {
	dir := t.TempDir()
	first := write(t, dir, "first.hcl", minimal+`
log_level = "warn"
ports {
  rpc    = 1000
  gossip = 1001
}
`)
	conf := filepath.Join(dir, "conf.d")
	require.NoError(t, os.Mkdir(conf, 0o700))
	write(t, conf, "20-late.json", `{"ports": {"rpc": 3000}}`)
	write(t, conf, "10-early.hcl", "ports {\n rpc = 2000\n admin = 2002\n}\nname = \"early\"\ncluster = \"early\"")
	write(t, conf, "30-notes.txt", "not ours {{{")
	write(t, conf, ".hidden.hcl", "not ours {{{")

	c, err := config.LoadNode(config.From{
		Paths:   []string{first, conf},
		Environ: []string{"LOGD_NAME=env", "LOGD_CLUSTER=env", "LOGD_RETRY_JOIN=a:1, b:2", "LOGD_LOG_SEGMENT_SIZE=2MiB", "LOGD_LOG_LEVEL=", "LOGD_ADDR=elsewhere:1", "PATH=/"},
		Flags:   map[string]string{"name": "flag"},
	})
	require.NoError(t, err)
	require.Equal(t, config.Ports{RPC: 3000, Gossip: 1001, Admin: 2002}, c.Ports, "files merge by setting, later wins")
	require.Equal(t, "warn", c.LogLevel, "an empty variable says nothing")
	require.Equal(t, "env", c.Cluster, "environment over file")
	require.Equal(t, "flag", c.Name, "flag over environment")
	require.Equal(t, []string{"a:1", "b:2"}, c.RetryJoin)
	require.Equal(t, 2*config.MiB, c.Log.SegmentSize)
}

func TestWhatIsNotThereIsTheOnlyProblem(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "n.conf", minimal)
	none := filepath.Join(dir, "none.hcl")
	load := func(paths ...string) error {
		_, err := config.LoadNode(config.From{Paths: paths})
		return err
	}
	require.Equal(t, []string{"Cannot read " + dir + ": there is no *.hcl or *.json in it"}, problems(t, load(dir)))
	require.Equal(t, []string{"Cannot read " + none + ": stat " + none + ": no such file or directory"}, problems(t, load(none)))
	require.NoError(t, load(write(t, t.TempDir(), "n.hcl", minimal), dir), "a directory for more may be empty")
}

func TestEveryProblemAtOnce(t *testing.T) {
	tests := map[string]struct {
		text    string
		environ []string
		flags   map[string]string
		want    []string
	}{
		"three of different kinds": {
			text: minimal + "bogus = 1\ndrain_timeout = \"10\"\nbind_addr = \"\"\nports {\n  rpc = 70000\n}\n",
			want: []string{
				`Unsupported argument: An argument named "bogus" is not expected here (n.hcl:10)`,
				`drain_timeout: "10" is not a duration: write a number and a unit, like "300ms", "10s" or "1h" (n.hcl:11)`,
				`bind_addr: required (n.hcl:12)`,
				`ports.rpc: 70000 is out of range: 0 to 65535 (n.hcl:14)`,
			},
		},
		"types": {
			text: minimal + "retry_join = \"a\"\nlog_level = true\nlog {\n  segment_size = \"64MB\"\n  cache_size = \"99TiB\"\n}\nports {\n  rpc = 1.5\n  gossip = \"x\"\n}\n",
			want: []string{
				`retry_join: "a" is not a list of strings: write ["a", "b"] (n.hcl:10)`,
				`log_level: true is not a string (n.hcl:11)`,
				`log.segment_size: "64MB" is not a size: write a whole number with B, KiB, MiB, GiB or TiB, like "64MiB" (n.hcl:13)`,
				`log.cache_size: 99TiB is out of range: 1MiB to 64GiB (n.hcl:14)`,
				`ports.rpc: 1.5 is not a whole number (n.hcl:17)`,
				`ports.gossip: "x" is not a number (n.hcl:18)`,
			},
		},
		"retention": {
			text: minimal + "retain {\n  age = \"7d\"\n  size = \"50GB\"\n  keep = 1\n}\n",
			want: []string{
				`retain.age: "7d" is not a duration: write a number and a unit, like "300ms", "10s" or "1h" (n.hcl:11)`,
				`retain.size: "50GB" is not a size: write a whole number with B, KiB, MiB, GiB or TiB, like "64MiB" (n.hcl:12)`,
				`retain: Unsupported argument: An argument named "keep" is not expected here (n.hcl:13)`,
			},
		},
		"retention that cannot be": {
			text: minimal + "retain {\n  age = \"30s\"\n  size = \"100MiB\"\n}\n",
			want: []string{
				`retain.age: 30s is out of range: 1m0s to 876000h0m0s (n.hcl:11)`,
				`retain.size: 100MiB is too little: at least 4 segments are needed, 256MiB (log.segment_size is 64MiB) (n.hcl:12)`,
			},
		},
		"more than a number can be": {
			text: minimal + "drain_timeout = \"99999999h\"\nlog {\n  segment_size = \"99999999TiB\"\n  cache_size = 99999999999999999999\n}\nports {\n  rpc = 99999999999\n  gossip = -99999999999\n}\n" +
				"raft {\n  heartbeat_timeout = \"-99999999h30m\"\n}\nretain {\n  size = \"99999999TiB\"\n}\n",
			environ: []string{"LOGD_RETAIN_AGE=99999999h"},
			want: []string{
				`drain_timeout: "99999999h" is out of range: 0s to 1h0m0s (n.hcl:10)`,
				`log.segment_size: "99999999TiB" is out of range: 64KiB to 1GiB (n.hcl:12)`,
				`log.cache_size: 99999999999999999999 is out of range: 1MiB to 64GiB (n.hcl:13)`,
				`ports.rpc: 99999999999 is out of range: 0 to 65535 (n.hcl:16)`,
				`ports.gossip: -99999999999 is out of range: 0 to 65535 (n.hcl:17)`,
				`raft.heartbeat_timeout: "-99999999h30m" is out of range: 10ms to 1m0s (n.hcl:20)`,
				`retain.size: "99999999TiB" is out of range: at most 8388607TiB (n.hcl:23)`,
				`retain.age: "99999999h" is out of range: 1m0s to 876000h0m0s (environment LOGD_RETAIN_AGE)`,
			},
		},
		"unknown and repeated blocks": {
			text: minimal + "port {\n}\nraft {\n}\nraft {\n}\n",
			want: []string{
				`Unsupported block type: Blocks of type "port" are not expected here. Did you mean "ports"? (n.hcl:10)`,
				`raft: Duplicate block: There is a raft block in this file already (n.hcl:14)`,
			},
		},
		"a syntax error hides neither a wrong value nor invents a missing one": {
			text: "ports {\n  rpc = 70000\n}\ndata_dir = = \"x\"\n",
			want: []string{
				`ports.rpc: 70000 is out of range: 0 to 65535 (n.hcl:2)`,
				`Invalid expression: Expected the start of an expression, but found an invalid expression token (n.hcl:4)`,
			},
		},
		"the environment and flags are named": {
			text:    minimal,
			environ: []string{"LOGD_DRAIN_TIMEOUT=soon", "LOGD_LOG_FORMAT=xml"},
			flags:   map[string]string{"name": "a/b"},
			want: []string{
				`drain_timeout: "soon" is not a duration: write a number and a unit, like "300ms", "10s" or "1h" (environment LOGD_DRAIN_TIMEOUT)`,
				`name: "a/b": letters, digits and inside it . _ - only, at most 100 (flag -name)`,
				`log_format: "xml": must be text or json (environment LOGD_LOG_FORMAT)`,
			},
		},
		"nothing said": {
			text: "",
			want: []string{
				"data_dir: required",
				"bootstrap_expect: one of bootstrap_expect and retry_join is required: this node could neither form a cluster nor join one",
				"gossip_key: required, here or as gossip_key_file: make one with `logd keygen`",
				"tls.ca_file: required",
				"tls.cert_file: required",
				"tls.key_file: required",
			},
		},
		"a corrected value is no problem any more": {
			text:    minimal + "drain_timeout = \"10\"\n",
			environ: []string{"LOGD_DRAIN_TIMEOUT=10s"},
			want: []string{
				`drain_timeout: "10" is not a duration: write a number and a unit, like "300ms", "10s" or "1h" (n.hcl:10)`,
			},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			_, err := config.LoadNode(config.From{Paths: []string{write(t, dir, "n.hcl", tt.text)}, Environ: tt.environ, Flags: tt.flags})
			got := problems(t, err)
			for i := range got {
				got[i] = strings.ReplaceAll(got[i], dir+"/", "")
			}
			require.Equal(t, tt.want, got)
		})
	}
}

func TestUnreadablePathsAreAllNamed(t *testing.T) {
	dir := t.TempDir()
	_, err := config.LoadNode(config.From{Paths: []string{filepath.Join(dir, "a.hcl"), filepath.Join(dir, "b.hcl")}})
	got := problems(t, err)
	require.Len(t, got, 2)
	require.Contains(t, got[0], "a.hcl")
	require.Contains(t, got[1], "b.hcl")
}

// Diagnostics show the file, the line and the line's text.
func TestRenderGolden(t *testing.T) {
	_, err := config.LoadNode(config.From{Paths: []string{"testdata/broken.hcl"}})
	var out bytes.Buffer
	require.NoError(t, config.Render(&out, err, 100, false))
	const golden = "testdata/broken.golden"
	if *update {
		require.NoError(t, os.WriteFile(golden, out.Bytes(), 0o600))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), out.String())
}

func TestRenderOfAnyOtherError(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, config.Render(&out, errors.New("boom"), 80, false))
	require.Equal(t, "Error: boom\n", out.String())
}

func TestBoundFlags(t *testing.T) {
	var from config.From
	fs := flag.NewFlagSet("agent", flag.ContinueOnError)
	from.Bind(fs, map[string]string{"data_dir": "", "retry_join": "", "ports.rpc": ""})
	require.NoError(t, fs.Parse([]string{
		"-config", write(t, t.TempDir(), "n.hcl", minimal), "-data-dir", "/elsewhere",
		"-retry-join=a:1", "--retry-join", "b:1", "-ports-rpc", "99",
	}))
	c, err := config.LoadNode(from)
	require.NoError(t, err)
	require.Equal(t, "/elsewhere", c.DataDir)
	require.Equal(t, []string{"a:1", "b:1"}, c.RetryJoin)
	require.Equal(t, 99, c.Ports.RPC)

	require.NoError(t, fs.Parse([]string{"-ports-rpc", "many"}))
	_, err = config.LoadNode(from)
	require.Equal(t, []string{`ports.rpc: "99,many" is not a number (flag -ports-rpc)`}, problems(t, err))
}
