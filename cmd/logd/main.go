// Command logd is the storage node of a replicated commit log, and the tool to
// operate and try it.
package main

import (
	"context"
	"os"

	"github.com/logd-io/logd/internal/cli"
	"github.com/logd-io/logd/pkg/telemetry"
)

// version is set by the linker for a release: -X main.version=1.2.3.
var version = "dev"

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := cli.Signals(context.Background())
	defer stop()
	build := telemetry.ReadBuild(version)
	return cli.Main(ctx, "logd", build.Version, commands(build), cli.OSEnv(), os.Args[1:])
}

func commands(build telemetry.Build) []cli.Command {
	return []cli.Command{
		agentCommand(build),
		devCommand(build),
		validateCommand(),
		membersCommand(),
		serversCommand(),
		produceCommand(),
		consumeCommand(),
		leaveCommand(),
		listPeersCommand(),
		removePeerCommand(),
		transferLeaderCommand(),
		autopilotStateCommand(),
		inspectListCommand(),
		inspectDumpCommand(),
		inspectVerifyCommand(),
		inspectExportCommand(),
		inspectImportCommand(),
		recoverCommand(),
		caCommand(),
		certCommand(),
		tlsShowCommand(),
		keygenCommand(),
		keyringListCommand(),
		keyringInstallCommand(),
		keyringUseCommand(),
		keyringRemoveCommand(),
		versionCommand(build),
	}
}
