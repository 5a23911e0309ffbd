package examples_test

import (
	"os"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/config"
	"github.com/logd-io/logd/pkg/authz"
)

// What the page on security shows of a policy stands in the example.
func TestTheShownRulesAreTheExamples(t *testing.T) {
	readme, err := os.ReadFile("../docs/ops/security.md")
	require.NoError(t, err)
	policy, err := os.ReadFile("acl/policy.csv")
	require.NoError(t, err)
	shown := regexp.MustCompile(`(?m)^[pg], .*$`).FindAllString(string(readme), -1)
	require.NotEmpty(t, shown)
	for _, rule := range shown {
		require.Contains(t, string(policy), "\n"+rule+"\n")
	}
}

func TestTheACLExampleIsWhatItSays(t *testing.T) {
	_, err := config.LoadNode(config.From{Paths: []string{"hcl/node.hcl", "acl/acl.hcl"}})
	require.NoError(t, err)
	files := authz.Files{Policy: "acl/policy.csv"}
	a, err := authz.Open(authz.Options{Files: files})
	require.NoError(t, err)
	for _, tc := range []struct {
		role, name, method string
		want               bool
	}{
		{"client", "alice", "/log.v1.Log/Produce", true},
		{"client", "bob", "/log.v1.Log/Produce", false},
		{"client", "bob", "/log.v1.Log/ConsumeStream", true},
		{"storage", "node1", "/node.v1.Node/Join", true},
		{"storage", "node4", "/node.v1.Node/Join", false},
		{"admin", "you", "/node.v1.Node/RemovePeer", true},
	} {
		_, err := a.Check(authz.Caller{Role: tc.role, Name: tc.name}, tc.method)
		require.Equal(t, tc.want, err == nil, "%v: %v", tc, err)
	}
	for _, proxy := range []string{"gateway", "proxy1"} {
		_, err := a.Check(authz.Caller{Role: "proxy", Name: proxy, Principal: "alice", Proxied: true}, "/node.v1.Node/Append")
		require.NoError(t, err)
	}
	// The book's model has no groups, so it takes the other lines.
	files.Model = "acl/model.conf"
	require.ErrorContains(t, authz.Verify(files), "acl/policy.csv")
}
