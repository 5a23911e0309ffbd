// Command logd is the storage node of a replicated commit log, and the tool to
// operate and try it.
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
	return cli.Main(ctx, "logd", build.Version, commands(build), cli.OSEnv(), os.Args[1:])
}

func commands(build telemetry.Build) []cli.Command {
	return []cli.Command{
		agentCommand(build),
		devCommand(build),
		validate.Command(nodes()),
		membersCommand(),
		serversCommand(),
		produceCommand(),
		consumeCommand(),
		{Name: "bench", Synopsis: "Measure producing and consuming"},
		benchProduceCommand(),
		benchConsumeCommand(),
		backupCommand(),
		waitCommand(),
		leaveCommand(),
		monitorCommand(),
		cli.ReloadCommand("node", "log_level, retain and the rates of limits\nanew, the certificates and the acl", adminFlags),
		cli.DebugCommand("logd", build.Version, "node", adminFlags),
		listPeersCommand(),
		removePeerCommand(),
		transferLeaderCommand(),
		autopilotStateCommand(),
		{Name: "operator", Synopsis: "Look at and change the Raft configuration"},
		{Name: "operator raft", Synopsis: "Who is in Raft's configuration, and who leads"},
		{Name: "operator autopilot", Synopsis: "What the leader thinks of its servers"},
		{Name: "inspect", Synopsis: "Look into a stopped node, back it up, restore it"},
		inspectListCommand(),
		inspectDumpCommand(),
		inspectVerifyCommand(),
		inspectExportCommand(),
		inspectImportCommand(),
		recoverCommand(),
		{Name: "bootstrap", Synopsis: "The beginning of a cluster"},
		bootstrapForgetCommand(),
		{Name: "tls", Synopsis: "Make and show certificates"},
		{Name: "tls ca", Synopsis: "The cluster's certificate authority"},
		{Name: "tls cert", Synopsis: "Certificates of nodes, proxies and people"},
		caCommand(),
		certCommand(),
		tlsShowCommand(),
		keygenCommand(),
		{Name: "keyring", Synopsis: "Change the gossip keys of a running cluster"},
		keyringListCommand(),
		keyringInstallCommand(),
		keyringUseCommand(),
		keyringRemoveCommand(),
		cli.CompletionCommand("logd"),
		versionCommand(build),
	}
}
