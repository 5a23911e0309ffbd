package main

import (
	"testing"

	"github.com/logd-io/logd/internal/cli/clitest"
	"github.com/logd-io/logd/pkg/telemetry"
)

func TestCommands(t *testing.T) {
	clitest.Commands(t, commands(telemetry.ReadBuild("1.2.3")), map[string]string{
		"agent":          "runs; log_format is how its log is written",
		"dev":            "runs, for a person",
		"wait":           "answers with its exit code",
		"monitor":        "shows a log; -log-format is how it is written",
		"inspect export": "its output is the export",
		"backup":         "its output is the backup",
		"keygen":         "its output is the key, and goes into a file",
		"completion":     "its output is for a shell",
	})
}
