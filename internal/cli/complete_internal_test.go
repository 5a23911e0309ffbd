package cli

import (
	"flag"
	"testing"

	"github.com/posener/complete"
	"github.com/stretchr/testify/require"
)

// What is offered is taken as it stands.
func TestCompletionOffersValuesOnly(t *testing.T) {
	offered := func(usage string) []string {
		fs := flag.NewFlagSet("", flag.ContinueOnError)
		fs.String("x", "", usage)
		return predict(fs.Lookup("x")).Predict(complete.Args{})
	}
	require.Equal(t, []string{"earliest", "latest"}, offered("`earliest|latest|offset|time`; a time is RFC 3339"))
	require.Equal(t, []string{"table", "json"}, offered("`table|json`: how"))
	require.Contains(t, offered("`file|dir`: another survivor"), "complete.go", "files, and no word for them")
	require.Empty(t, offered("`name` of it"))
}
