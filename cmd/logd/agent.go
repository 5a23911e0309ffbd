package main

import (
	"context"
	"errors"
	"flag"
	"net"
	"strconv"

	"github.com/logd-io/logd/config"
	"github.com/logd-io/logd/internal/cli"
	"github.com/logd-io/logd/internal/cli/validate"
	"github.com/logd-io/logd/pkg/agent"
	"github.com/logd-io/logd/pkg/replica"
	"github.com/logd-io/logd/pkg/telemetry"
)

// agentSettings are the settings that have a flag, and its usage.
func agentSettings() map[string]string {
	return map[string]string{
		"name":             "`name` in the certificate. Default: taken from it",
		"data_dir":         "`directory` of everything the node must not forget",
		"bind_addr":        "`host` that all listeners bind. Default: 0.0.0.0",
		"advertise_addr":   "`host` under which others reach this node. Default: bind_addr, or a private address",
		"ports.rpc":        "`port` for gRPC and Raft; 0 for any. Default: 8400",
		"ports.gossip":     "`port` for gossip; 0 for any. Default: 8401",
		"ports.admin":      "`port` for the admin HTTP server; 0 for any. Default: 8402",
		"bootstrap_expect": "`number` of nodes that form a new cluster together; 0 only joins one",
		"retry_join":       "`address` of another node's gossip; repeatable",
		"log_level":        "`trace|debug|info|warn|error|off`. Default: info",
		"log_format":       "`text|json`. Default: text",
	}
}

func agentCommand(build telemetry.Build) cli.Command {
	return cli.Command{
		Name:     "agent",
		Synopsis: "Run a storage node",
		Long: `Runs until the first SIGTERM or SIGINT, then hands leadership on and drains; a
second one ends it at once. Flags win over the environment (LOGD_ and a setting's
path in capitals, like LOGD_PORTS_RPC), that over files, those over the defaults.
On SIGHUP it takes log_level, retain and the rates of limits from them anew, and
reads the certificates and the acl: all of it or, when something does not load,
nothing.
It exits with 3 after a fault of the disk or of the log that it must not survive.`,
		Examples: `agent -config /etc/logd/logd.hcl
agent -config /etc/logd -log-level debug`,
		Setup: func(fs *flag.FlagSet, env cli.Env) cli.Action {
			from := config.From{Environ: env.Environ}
			from.Bind(fs, agentSettings())
			return func(ctx context.Context, _ []string) error {
				conf, err := config.LoadNode(from)
				if err != nil {
					nodes().WarnOfTypos(env) // which may be why
					return validate.Show(env, err)
				}
				load := func() (config.Node, error) { return config.LoadNode(from) }
				a, err := openAgent(ctx, conf, load, build, env)
				if err != nil && ctx.Err() != nil {
					return nil //nolint:nilerr // told to stop before it began
				}
				if err == nil {
					err = cli.Serve(ctx, env, cli.Service{
						Title: "logd agent running!", Facts: facts(conf, build, a), Process: a, DrainTimeout: conf.DrainTimeout,
						Reload: func() error {
							_, err := a.Reload(load)
							return err
						},
					})
				}
				return fatalOr(err)
			}
		},
	}
}

// fatalOr marks the faults for which the process exits with 3.
func fatalOr(err error) error {
	var fatal *replica.FatalError
	if errors.As(err, &fatal) {
		return &cli.FatalError{Err: err}
	}
	return err
}

func openAgent(ctx context.Context, conf config.Node, load func() (config.Node, error), build telemetry.Build, env cli.Env) (*agent.Agent, error) {
	logger, err := telemetry.NewLogger(telemetry.LogOptions{
		Name: "logd", Level: conf.LogLevel, Format: conf.LogFormat, Output: env.Stderr,
	})
	if err != nil {
		return nil, err
	}
	for _, typo := range config.NodeTypos(env.Environ) {
		logger.Warn("a variable in the environment is no setting, and is ignored", "variable", typo.Name, "did_you_mean", typo.Meant)
	}
	registry := telemetry.NewRegistry("logd", build)
	sink, err := telemetry.NewSink("logd", registry)
	if err != nil {
		return nil, err
	}
	if err := sink.InstallGlobal(); err != nil {
		return nil, err
	}
	if err := cli.AwaitHost(ctx, env, net.DefaultResolver, "advertise_addr", conf.AdvertiseAddr, logger.Warn); err != nil {
		return nil, err
	}
	tracing, err := telemetry.OpenTracing(telemetry.TraceOptions{
		Program: "logd", Version: build.Version, SampleRatio: conf.Telemetry.SampleRatio,
		Endpoint: telemetry.TraceEndpoint(conf.Telemetry.OTLPEndpoint, env.Getenv),
		Logger:   logger.Named("tracing"), Registerer: registry,
	})
	if err != nil {
		return nil, err
	}
	defer cli.Opening(env, "reading the log in "+conf.DataDir)()
	return agent.Open(conf, agent.Deps{Logger: logger, Registry: registry, Tracing: tracing, Version: build.Version, Load: load})
}

func facts(conf config.Node, build telemetry.Build, a *agent.Agent) []cli.Fact {
	bootstrap := "joins only"
	if conf.BootstrapExpect > 0 {
		bootstrap = "expects " + strconv.Itoa(conf.BootstrapExpect)
	}
	return []cli.Fact{
		{Name: "Version", Value: build.String()},
		{Name: "Node ID", Value: a.ID()},
		{Name: "Data directory", Value: conf.DataDir},
		{Name: "RPC", Value: a.Addr() + " (gRPC and Raft, mTLS)"},
		{Name: "Gossip", Value: a.GossipAddr()},
		{Name: "Admin", Value: a.AdminAddr()},
		{Name: "Bootstrap", Value: bootstrap},
		{Name: "Log level", Value: conf.LogLevel},
	}
}
