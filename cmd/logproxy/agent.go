package main

import (
	"context"
	"flag"
	"fmt"
	"net"

	"github.com/logd-io/logd/config"
	"github.com/logd-io/logd/internal/cli"
	"github.com/logd-io/logd/internal/cli/validate"
	"github.com/logd-io/logd/pkg/proxy"
	"github.com/logd-io/logd/pkg/telemetry"
)

// agentSettings are the settings that have a flag, and its usage.
func agentSettings() map[string]string {
	return map[string]string{
		"name":              "`name` in the certificate. Default: taken from it",
		"data_dir":          "`directory` for the addresses really bound",
		"listener.address":  "`host:port` or unix:///path for clients. Default: 127.0.0.1:8410",
		"admin.address":     "`host:port` of the admin HTTP server. Default: 127.0.0.1:8412",
		"gossip.address":    "`host:port` for gossip. Default: 0.0.0.0:8411",
		"gossip.retry_join": "`address` of a node's gossip; repeatable",
		"get_servers":       "`proxy|cluster`: whom GetServers names. Default: proxy",
		"log_level":         "`trace|debug|info|warn|error|off`. Default: info",
		"log_format":        "`text|json`. Default: text",
	}
}

func agentCommand(build telemetry.Build) cli.Command {
	return cli.Command{
		Name:     "agent",
		Synopsis: "Run the proxy",
		Long: `Runs until the first SIGTERM or SIGINT, and then drains; a second one ends it at
once. Flags win over the environment (LOGPROXY_ and a setting's path in capitals,
like LOGPROXY_LISTENER_ADDRESS), that over files, those over the defaults. On SIGHUP
it takes log_level and the rates of limits from them anew, and reads the
certificates: all of it or, when something does not load, nothing.`,
		Examples: `agent
agent -config /etc/logproxy/logproxy.hcl
agent -listener-address unix:///run/logproxy.sock -gossip-retry-join node1:8401`,
		Setup: func(fs *flag.FlagSet, env cli.Env) cli.Action {
			from := config.From{Environ: env.Environ}
			from.Bind(fs, agentSettings())
			return func(ctx context.Context, _ []string) error {
				conf, err := config.LoadProxy(from)
				if err != nil {
					proxies().WarnOfTypos(env) // which may be why
					return validate.Show(env, err)
				}
				load := func() (config.Proxy, error) { return config.LoadProxy(from) }
				p, err := openProxy(ctx, conf, load, build, env)
				if err != nil && ctx.Err() != nil {
					return nil // told to stop before it began
				}
				if err != nil {
					return err
				}
				defer paceGC()()
				return cli.Serve(ctx, env, cli.Service{
					Title: "logproxy agent running!", Facts: facts(conf, build, p), Process: p, DrainTimeout: conf.DrainDelay + conf.DrainTimeout,
					Reload: func() error {
						_, err := p.Reload(load)
						return err
					},
					Useful: true, // a program that is started after it finds the log
				})
			}
		},
	}
}

func openProxy(ctx context.Context, conf config.Proxy, load func() (config.Proxy, error), build telemetry.Build, env cli.Env) (*proxy.Proxy, error) {
	logger, err := telemetry.NewLogger(telemetry.LogOptions{
		Name: "logproxy", Level: conf.LogLevel, Format: conf.LogFormat, Output: env.Stderr,
	})
	if err != nil {
		return nil, err
	}
	for _, typo := range config.ProxyTypos(env.Environ) {
		logger.Warn("a variable in the environment is no setting, and is ignored", "variable", typo.Name, "did_you_mean", typo.Meant)
	}
	registry := telemetry.NewRegistry("logproxy", build)
	sink, err := telemetry.NewSink("logproxy", registry)
	if err != nil {
		return nil, err
	}
	if err := sink.InstallGlobal(); err != nil {
		return nil, err
	}
	if conf.UsesGossip() && conf.Gossip.AdvertiseAddress != "" {
		host, err := conf.AdvertiseHost()
		if err != nil {
			return nil, err
		}
		if err := cli.AwaitHost(ctx, env, net.DefaultResolver, "gossip.advertise_address", host, logger.Warn); err != nil {
			return nil, err
		}
	}
	tracing, err := telemetry.OpenTracing(telemetry.TraceOptions{
		Program: "logproxy", Version: build.Version, SampleRatio: conf.Telemetry.SampleRatio,
		Endpoint: telemetry.TraceEndpoint(conf.Telemetry.OTLPEndpoint, env.Getenv),
		Logger:   logger.Named("tracing"), Registerer: registry,
	})
	if err != nil {
		return nil, err
	}
	return proxy.Open(conf, proxy.Deps{Logger: logger, Registry: registry, Tracing: tracing, Version: build.Version, Load: load})
}

func facts(conf config.Proxy, build telemetry.Build, p *proxy.Proxy) []cli.Fact {
	security := "plaintext, this machine only"
	if !conf.Listener.TLS.IsZero() {
		security = "mTLS"
	}
	var sources string
	for i, d := range conf.Sources() {
		if i > 0 {
			sources += ", "
		}
		sources += d.Kind
	}
	facts := []cli.Fact{
		{Name: "Version", Value: build.String()},
		{Name: "Listener", Value: fmt.Sprintf("%s (%s)", p.Addr(), security)},
		{Name: "Admin", Value: p.AdminAddr()},
		{Name: "Discovery", Value: sources},
	}
	if conf.UsesGossip() {
		facts = append(facts, cli.Fact{Name: "Gossip", Value: p.GossipAddr()})
	}
	return append(facts, cli.Fact{Name: "Log level", Value: conf.LogLevel})
}
