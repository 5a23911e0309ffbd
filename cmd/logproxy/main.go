// Command logproxy is the sidecar that makes a logd cluster feel local.
package main

import (
	"context"
	"os"

	"github.com/logd-io/logd/internal/cli"
	"github.com/logd-io/logd/internal/cli/validate"
	"github.com/logd-io/logd/pkg/telemetry"
)

// version is set by the linker for a release: -X main.version=1.2.3.
var version = "dev"

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := cli.Signals(context.Background())
	defer stop()
	build := telemetry.ReadBuild(version)
	return cli.Main(ctx, "logproxy", build.Version, commands(build), cli.OSEnv(), os.Args[1:])
}

func commands(build telemetry.Build) []cli.Command {
	return []cli.Command{
		agentCommand(build),
		waitCommand(),
		statusCommand(),
		monitorCommand(),
		cli.ReloadCommand("proxy", "log_level and the rates of limits\nanew, and the certificates", adminFlags),
		cli.DebugCommand("logproxy", build.Version, "proxy", adminFlags),
		drainCommand(),
		validate.Command(proxies()),
		cli.CompletionCommand("logproxy"),
		versionCommand(build),
	}
}
