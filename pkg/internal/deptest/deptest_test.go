package deptest_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/internal/deptest"
)

// made is a small graph: paths without a dot in their first element are ours.
func made(edges map[string][]string) deptest.Graph {
	g := deptest.Graph{}
	ours := func(p string) string {
		if p[0] == '@' {
			return p[1:]
		}
		return deptest.Module + "/" + p
	}
	for from, tos := range edges {
		p := &deptest.Package{ImportPath: ours(from), Doc: "Package x.", GoFiles: []string{"x.go"}}
		for _, to := range tos {
			p.Imports = append(p.Imports, ours(to))
		}
		g[p.ImportPath] = p
	}
	return g
}

func TestEveryKindOfRuleFindsWhatBreaksIt(t *testing.T) {
	g := made(map[string][]string{
		"a":        {"b"},
		"b":        {"c", "@lib/raft"},
		"c":        {"d"},
		"d":        nil,
		"lone":     nil,
		"pkg/util": nil,
	})
	g[deptest.Module+"/lone"].Doc = ""

	tests := map[string]struct {
		got  []string
		want []string
	}{
		"a forbidden package three imports away": {
			deptest.Never{From: []string{"a"}, To: []string{"d"}, Why: "why"}.Check(g),
			[]string{"a must not reach d (why), but does: a → b → c → d"},
		},
		"a forbidden library": {
			deptest.Never{From: []string{"a"}, To: []string{"lib/raft/..."}, Why: "why"}.Check(g),
			[]string{"a must not reach lib/raft/... (why), but does: a → b → lib/raft"},
		},
		"an excepted package": {
			deptest.Never{From: []string{"a", "b"}, Except: []string{"a"}, To: []string{"c"}, Why: "why"}.Check(g),
			[]string{"b must not reach c (why), but does: b → c"},
		},
		"nothing to find": {
			deptest.Never{From: []string{"lone"}, To: []string{"d"}}.Check(g),
			nil,
		},
		"both of two": {
			deptest.NeverBoth{A: "c", B: "lib/raft", Except: []string{"a"}, Why: "why"}.Check(g),
			[]string{"b must not see both c and lib/raft (why), but does: b → c; b → lib/raft"},
		},
		"a library in the wrong hands": {
			deptest.Only{Library: "lib/raft", By: []string{"c"}, Why: "why"}.Check(g),
			[]string{"b must not import lib/raft (why)"},
		},
		"an import no row allows, and a package without a row": {
			deptest.May{{Package: "a"}, {Package: "b", Imports: []string{"c"}}, {Package: "pkg/..."}, {Package: "lone"}, {Package: "d"}}.Check(g, nil),
			[]string{
				"a must not import b: its row allows nothing of ours",
				"c is in no row of the import table: give it one there and in ARCHITECTURE.md",
			},
		},
		"a name that says nothing": {
			g.Names("util", "core"),
			[]string{`pkg/util is called "util": name it for the one thing it does`},
		},
		"no package comment": {
			g.Undocumented(),
			[]string{"lone has no package comment"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, tt.want, tt.got)
		})
	}
}

func TestMatch(t *testing.T) {
	tests := map[string]struct {
		pattern, path string
		want          bool
	}{
		"itself":                     {"pkg/vfs", deptest.Module + "/pkg/vfs", true},
		"below, without dots":        {"pkg/vfs", deptest.Module + "/pkg/vfs/memfs", false},
		"below, with dots":           {"pkg/vfs/...", deptest.Module + "/pkg/vfs/memfs", true},
		"the top of a tree":          {"pkg/vfs/...", deptest.Module + "/pkg/vfs", true},
		"a name that only begins so": {"github.com/hashicorp/raft/...", "github.com/hashicorp/raft-autopilot", false},
		"a library":                  {"github.com/hashicorp/raft", "github.com/hashicorp/raft", true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, tt.want, deptest.Match(tt.pattern, tt.path))
		})
	}
}
