package deptest_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/internal/deptest"
)

// may is the package table of the design: who may import whom of ours, directly.
var may = deptest.May{
	{Package: "cmd/logd", Imports: []string{
		"internal/cli/...", "config", "pkg/agent", "pkg/devcluster", "pkg/client/...", "pkg/api/...", "pkg/apierr",
		"pkg/commitlog", "pkg/raftstore", "pkg/replica", "pkg/vfs", "pkg/membership", "pkg/autopilot", "pkg/bootstrap", "pkg/server",
		"pkg/authz", "pkg/discovery/...", "pkg/balance",
	}},
	{Package: "cmd/logproxy", Imports: []string{"internal/cli/...", "config", "pkg/proxy", "pkg/client/...", "pkg/api/...", "pkg/apierr"}},
	{Package: "internal/cli/validate", Imports: []string{"internal/cli", "config"}},
	{Package: "internal/cli/...", Imports: []string{"internal/cli/...", "pkg/client/...", "pkg/api/...", "pkg/apierr"}},
	{Package: "config"},

	{Package: "pkg/api/..."},
	{Package: "pkg/apierr", Imports: []string{"pkg/api/..."}},
	{Package: "pkg/client/...", Imports: []string{"pkg/client/...", "pkg/api/...", "pkg/apierr", "pkg/balance"}},

	{Package: "pkg/vfs/...", Imports: []string{"pkg/vfs/..."}},
	{Package: "internal/planted"},
	{Package: "pkg/commitlog/...", Imports: []string{"pkg/commitlog/...", "pkg/vfs/...", "internal/planted"}},
	{Package: "pkg/raftstore/...", Imports: []string{"pkg/raftstore/...", "pkg/commitlog", "pkg/vfs", "internal/planted"}},
	{Package: "pkg/replica/...", Imports: []string{"pkg/replica/...", "pkg/commitlog", "pkg/raftstore", "pkg/vfs/..."}},
	{Package: "pkg/membership/...", Imports: []string{"pkg/membership/..."}},
	{Package: "pkg/bootstrap/...", Imports: []string{"pkg/vfs"}},
	{Package: "pkg/autopilot", Imports: []string{"pkg/membership", "pkg/replica"}},
	{Package: "pkg/authz"},
	{Package: "pkg/tlsconf/...", Imports: []string{"pkg/tlsconf"}},
	{Package: "pkg/certwatch", Imports: []string{"pkg/tlsconf"}},
	{Package: "pkg/server/...", Imports: []string{"pkg/server/...", "pkg/api/...", "pkg/apierr", "pkg/authz", "pkg/commitlog", "pkg/replica", "pkg/bootstrap"}},
	{Package: "pkg/agent/...", Imports: []string{
		"pkg/agent/...", "config", "pkg/api/...", "pkg/apierr", "pkg/authz", "pkg/autopilot", "pkg/bootstrap", "pkg/certwatch", "pkg/commitlog",
		"pkg/membership", "pkg/raftstore", "pkg/replica", "pkg/server", "pkg/vfs", "pkg/discovery/zk", "pkg/registrar",
	}},
	{Package: "pkg/registrar", Imports: []string{"pkg/discovery/zk"}},

	{Package: "pkg/discovery/serf", Imports: []string{"pkg/discovery", "pkg/membership"}},
	{Package: "pkg/discovery/...", Imports: []string{"pkg/discovery"}},
	{Package: "pkg/balance/...", Imports: []string{"pkg/balance"}},
	{Package: "pkg/proxy/route", Imports: []string{"pkg/balance", "pkg/discovery"}},
	{Package: "pkg/proxy/upstream", Imports: []string{"pkg/discovery"}},
	{Package: "pkg/proxy/control", Imports: []string{"pkg/proxy/route", "pkg/proxy/upstream", "pkg/discovery", "pkg/balance", "pkg/apierr", "pkg/api/..."}},
	{Package: "pkg/proxy/forward", Imports: []string{"pkg/proxy/route", "pkg/proxy/upstream", "pkg/api/...", "pkg/apierr"}},
	{Package: "pkg/proxy", Imports: []string{
		"pkg/proxy/...", "config", "pkg/api/...", "pkg/apierr", "pkg/balance", "pkg/certwatch", "pkg/discovery/...", "pkg/membership",
	}},

	{Package: "pkg/telemetry"},
	{Package: "pkg/devcluster", Imports: []string{"config", "pkg/agent", "pkg/proxy", "pkg/client/...", "pkg/api/...", "pkg/vfs/..."}},
	{Package: "pkg/internal/named", Imports: []string{"config"}},
	{Package: "pkg/internal/..."},

	{Package: "examples/...", Imports: []string{"config", "pkg/authz", "pkg/api/..."}},
	{Package: "test/...", Imports: []string{"test/...", "config", "pkg/...", "internal/cli/...", "internal/planted"}},
}

// always may be imported by every package: the first two by compositions and
// transports, which the rules below keep to.
var always = []string{"pkg/tlsconf", "pkg/telemetry", "pkg/internal/..."}

var never = map[string]deptest.Never{
	"the proxy links no storage": {
		From: []string{"pkg/proxy/...", "cmd/logproxy"},
		To: []string{
			"github.com/hashicorp/raft/...", "github.com/hashicorp/raft-autopilot/...", "pkg/commitlog/...", "pkg/raftstore/...", "pkg/replica/...",
			"pkg/agent/...", "pkg/server/...", "github.com/casbin/casbin/v3/...",
		},
		Why: "a sidecar holds no data, decides about nobody and must stay small",
	},
	"the data path does not know control": {
		From: []string{"pkg/proxy/forward"}, To: []string{"pkg/proxy/control"},
		Why: "they share route.Table and nothing else",
	},
	"control does not know the data path": {
		From: []string{"pkg/proxy/control"}, To: []string{"pkg/proxy/forward"},
		Why: "they share route.Table and nothing else",
	},
	"the log knows nothing of consensus or transport": {
		From: []string{"pkg/commitlog/...", "pkg/vfs/..."},
		To:   []string{"github.com/hashicorp/raft/...", "google.golang.org/grpc/...", "pkg/api/..."},
		Why:  "it is a log on a disk, usable without them",
	},
	"gossip cannot touch the log": {
		From: []string{"pkg/membership/..."}, To: []string{"pkg/replica/...", "pkg/raftstore/...", "pkg/commitlog/..."},
		Why: "gossip is a hint and decides nothing",
	},
	"clients link no server": {
		From: []string{"pkg/client/...", "pkg/apierr", "pkg/api/..."},
		To:   []string{"github.com/hashicorp/raft/...", "github.com/hashicorp/serf/...", "pkg/commitlog/...", "pkg/replica/...", "pkg/server/...", "pkg/proxy/..."},
		Why:  "they are promised to importers and stay light",
	},
	"only compositions and transports know certificates and telemetry": {
		From: []string{
			"config", "pkg/api/...", "pkg/apierr", "pkg/vfs/...", "pkg/commitlog/...", "pkg/raftstore/...", "pkg/replica/...",
			"pkg/bootstrap/...", "pkg/balance/...", "pkg/authz", "pkg/proxy/route",
		},
		To:  []string{"pkg/tlsconf/...", "pkg/telemetry/..."},
		Why: "what they need of them is passed in",
	},
	"nothing that ships knows the tests' harness": {
		From: []string{"cmd/...", "config", "internal/...", "pkg/..."}, To: []string{"test/..."},
		Why: "test code stays out of binaries",
	},
}

var neverBoth = deptest.NeverBoth{
	A: "pkg/agent", B: "pkg/proxy", Except: []string{"pkg/devcluster", "cmd/logd", "test/..."},
	Why: "only devcluster and cmd/logd put a node and a proxy into one process",
}

// testOnly are the packages that help tests and are no tests themselves.
var testOnly = []string{
	"test/...", "pkg/internal/testutil", "pkg/internal/http2test", "internal/cli/clitest", "pkg/tlsconf/tlstest", "pkg/balance/balancetest", "pkg/discovery/discoverytest", "pkg/discovery/dns/dnstest", "pkg/discovery/zk/zktest",
	"pkg/vfs/vfstest", "pkg/commitlog/commitlogtest",
}

var only = map[string]deptest.Only{
	"testing": {Library: "testing/...", By: testOnly, Why: "test code stays out of binaries"},
	"testify": {Library: "github.com/stretchr/testify/...", By: testOnly, Why: "test code stays out of binaries"},
	"porcupine": {
		Library: "github.com/anishathalye/porcupine/...", By: []string{"test/history/linear"},
		Why: "it is a second opinion on histories, for tests only",
	},
	"raft": {
		Library: "github.com/hashicorp/raft/...", By: []string{"pkg/replica/...", "pkg/raftstore/...", "pkg/autopilot", "test/crash"},
		Why: "replica is the one door to consensus, and could be another library behind it",
	},
	"raft-autopilot": {Library: "github.com/hashicorp/raft-autopilot/...", By: []string{"pkg/autopilot"}, Why: "it has one wrapper"},
	"serf":           {Library: "github.com/hashicorp/serf/...", By: []string{"pkg/membership/..."}, Why: "membership answers with values"},
	"memberlist":     {Library: "github.com/hashicorp/memberlist/...", By: []string{"pkg/membership/..."}, Why: "membership answers with values"},
	"grpc-proxy":     {Library: "github.com/mwitkow/grpc-proxy/...", By: []string{"pkg/proxy", "pkg/proxy/forward"}, Why: "it passes through what the proxy does not know"},
	"casbin":         {Library: "github.com/casbin/casbin/v3/...", By: []string{"pkg/authz"}, Why: "authz answers who may, and could ask another library"},
	"otel-sdk":       {Library: "go.opentelemetry.io/otel/sdk/...", By: []string{"pkg/telemetry"}, Why: "the others start spans, and do not know where they go"},
	"otelgrpc":       {Library: "go.opentelemetry.io/contrib/...", By: []string{"pkg/telemetry"}, Why: "it has one place"},
	"hcl":            {Library: "github.com/hashicorp/hcl/v2/...", By: []string{"config", "test/..."}, Why: "the others see the decoded structs"},
}

func TestImportRules(t *testing.T) {
	g := load(t)

	t.Run("import table", func(t *testing.T) { holds(t, may.Check(g, always)) })
	for name, rule := range never {
		t.Run(name, func(t *testing.T) { holds(t, rule.Check(g)) })
	}
	t.Run("one process, one role", func(t *testing.T) { holds(t, neverBoth.Check(g)) })
	for name, rule := range only {
		t.Run(name+" has its place", func(t *testing.T) { holds(t, rule.Check(g)) })
	}
	t.Run("names", func(t *testing.T) { holds(t, g.Names("util", "utils", "common", "types", "core")) })
	t.Run("package comments", func(t *testing.T) { holds(t, g.Undocumented()) })
}

func holds(t *testing.T, broken []string) {
	t.Helper()
	for _, b := range broken {
		t.Error(b)
	}
}

func load(t *testing.T) deptest.Graph {
	t.Helper()
	root := filepath.Join("..", "..", "..")
	_, err := os.Stat(filepath.Join(root, "go.mod"))
	require.NoError(t, err, "the module's root moved")

	// The go command caches a passing test by the files the test process itself
	// looked at, and go list is another process: look at the folders here, or a
	// new import elsewhere would go unnoticed until the cache is emptied.
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != root && (d.Name() == "bin" || d.Name() == "dist" || d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".")):
			return fs.SkipDir
		}
		return nil
	}))

	g, err := deptest.Load(root)
	require.NoError(t, err)
	require.NotEmpty(t, g.Ours(), "no package of the module was found")
	return g
}
