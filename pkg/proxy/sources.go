package proxy

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/logd-io/logd/config"
	"github.com/logd-io/logd/pkg/discovery"
	"github.com/logd-io/logd/pkg/discovery/dns"
	"github.com/logd-io/logd/pkg/discovery/serf"
	"github.com/logd-io/logd/pkg/discovery/static"
	"github.com/logd-io/logd/pkg/discovery/zk"
)

// sources makes the sources of the discovery blocks. There is one of a kind at most.
func (p *Proxy) sources(reg prometheus.Registerer) ([]discovery.Source, error) {
	failures := prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "logproxy", Name: "discovery_failures_total", Help: "Times a source of nodes could not be read; what it said last stays.",
	}, []string{"source"})
	if err := reg.Register(failures); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	var all []discovery.Source
	for _, d := range p.cfg.Sources() {
		s, err := p.source(d, failures.WithLabelValues(d.Kind).Inc)
		if err != nil {
			return nil, fmt.Errorf("discovery.%s: %w", d.Kind, err)
		}
		all = append(all, s)
	}
	return all, nil
}

func (p *Proxy) source(d config.Discovery, failed func()) (discovery.Source, error) {
	log := p.log.Named("discovery").Named(d.Kind)
	switch d.Kind {
	case "serf":
		return serf.New(p.gossip), nil
	case "static":
		return static.New(d.Nodes)
	case "dns":
		return dns.New(dns.Config{Name: d.Name, Port: d.Port, SRV: d.SRV, Interval: d.Interval, Logger: log, Failed: failed})
	case "zookeeper":
		return zk.New(serverset(d), zk.Options{Logger: log, Failed: failed})
	}
	return nil, fmt.Errorf("unknown source %q", d.Kind)
}

func serverset(d config.Discovery) zk.Config {
	return zk.Config{
		Servers: d.Servers, Path: d.Path, SessionTimeout: d.SessionTimeout,
		User: d.User, Password: d.Password, PasswordFile: d.PasswordFile,
		CAFile: d.TLS.CAFile, CertFile: d.TLS.CertFile, KeyFile: d.TLS.KeyFile,
	}
}
