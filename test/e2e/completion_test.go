package e2e_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Shells ask the program itself what could come next: bash does, by what the script
// told it, as it would at a press of the tab key.
func TestShellCompletion(t *testing.T) {
	t.Parallel()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("no bash")
	}
	const press = `set -eu
source <("$0" completion bash)
name=${0##*/}
asked=$(complete -p "$name")      # complete -o default -C <command> <name>
asked=${asked#*-C }; asked=${asked% *}
export COMP_LINE="$1" COMP_POINT=${#1}
eval "eval $asked"`
	for line, want := range map[string][]string{
		"logd ":                            {"agent", "completion", "keyring", "operator", "produce"},
		"logd pro":                         {"produce"},
		"logd operator ":                   {"autopilot", "raft"},
		"logd operator raft tr":            {"transfer-leader"},
		"logd consume -fo":                 {"-follow", "-format"},
		"logd consume -format ":            {"json", "table"},
		"logd tls cert create -role st":    {"storage"},
		"logd completion ":                 {"bash", "fish", "zsh"},
		"logproxy ":                        {"agent", "status", "wait"},
		"logproxy agent -get-servers clus": {"cluster"},
	} {
		t.Run(line, func(t *testing.T) {
			program := filepath.Join(bin, strings.Fields(line)[0])
			out, err := exec.CommandContext(t.Context(), bash, "-c", press, program, line).CombinedOutput()
			require.NoError(t, err, "%s", out)
			require.Subset(t, strings.Fields(string(out)), want, "%s", out)
			last := line[strings.LastIndex(line, " ")+1:]
			for _, word := range strings.Fields(string(out)) {
				require.True(t, strings.HasPrefix(word, last), word)
			}
		})
	}
}
