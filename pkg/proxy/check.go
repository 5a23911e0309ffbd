package proxy

import (
	"github.com/logd-io/logd/config"
	"github.com/logd-io/logd/pkg/internal/named"
	"github.com/logd-io/logd/pkg/tlsconf"
)

// Check opens the files that cfg names, as Open does, and reports everything that is
// wrong with them, as a *config.Error. It opens neither data_dir nor a port.
func Check(cfg config.Proxy) error {
	_, _, found := certificates(&cfg)
	if cfg.UsesGossip() {
		if _, err := cfg.GossipKeys(); err != nil {
			found = append(found, config.Finding{Path: "gossip.key_file", Err: err})
		}
	}
	for _, d := range cfg.Discovery {
		if d.Kind != "zookeeper" {
			continue
		}
		// The proxy would start without, and look for them again.
		password, tls := serverset(d).Files()
		if password != nil {
			found = append(found, config.Finding{Path: "discovery.zookeeper.password_file", Err: password})
		}
		if tls != nil {
			found = append(found, config.Finding{Path: "discovery.zookeeper.tls", Err: tls})
		}
	}
	return cfg.Found(found)
}

// certificates loads what the proxy shows to nodes, and to clients (nil: plaintext).
func certificates(cfg *config.Proxy) (up, down *tlsconf.Source, found config.Findings) {
	// Nodes take a proxy's word for who its clients are only with its role.
	up, found = named.Certificate("upstream.tls", cfg.Upstream.TLS, named.Holder{Role: tlsconf.RoleProxy, Name: cfg.Name, Cluster: cfg.Cluster})
	if !cfg.Listener.TLS.IsZero() {
		var more config.Findings
		down, more = named.Certificate("listener.tls", cfg.Listener.TLS, named.Holder{})
		found = append(found, more...)
	}
	return up, down, found
}
