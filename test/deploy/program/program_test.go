package program_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/test/deploy/program"
)

func TestCheckKnowsWhatTheProgramsTake(t *testing.T) {
	p, err := program.Build(t.TempDir())
	require.NoError(t, err)
	for _, tc := range []struct {
		argv  []string
		flags map[string][]string
		rest  []string
	}{
		{[]string{"logd", "agent", "-config", "/a", "-config=/b"}, map[string][]string{"config": {"/a", "/b"}}, []string{}},
		{[]string{"logd", "consume", "-follow", "-from", "earliest"}, map[string][]string{"follow": {""}, "from": {"earliest"}}, []string{}},
		{[]string{"logd", "tls", "cert", "create", "-role", "proxy", "-name", "p"}, map[string][]string{"role": {"proxy"}, "name": {"p"}}, []string{}},
		{[]string{"logproxy", "wait", "-timeout", "1m"}, map[string][]string{"timeout": {"1m"}}, []string{}},
		{[]string{"logd", "validate", "/a"}, map[string][]string{}, []string{"/a"}},
	} {
		flags, rest, err := p.Check(tc.argv)
		require.NoError(t, err)
		require.Equal(t, tc.flags, flags)
		require.Equal(t, tc.rest, rest)
	}
	for _, argv := range [][]string{
		nil, {"sh", "-c", "true"}, {"logd"}, {"logd", "run"}, {"logproxy", "produce"},
		{"logd", "agent", "-confg", "/a"}, {"logd", "agent", "-config"}, {"logd", "agent", "more", "-config", "/a"},
	} {
		_, _, err := p.Check(argv)
		require.Error(t, err, "%q", argv)
	}
}
