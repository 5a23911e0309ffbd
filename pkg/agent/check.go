package agent

import (
	"errors"

	"github.com/logd-io/logd/config"
	"github.com/logd-io/logd/pkg/authz"
	"github.com/logd-io/logd/pkg/internal/named"
	"github.com/logd-io/logd/pkg/tlsconf"
)

// Check opens the files that cfg names, as Open does, and reports everything that is
// wrong with them, as a *config.Error. It opens neither data_dir nor a port.
func Check(cfg config.Node) error {
	_, found := certificate(&cfg)
	if _, err := cfg.GossipKeys(); err != nil {
		found = append(found, config.Finding{Path: "gossip_key_file", Err: err})
	}
	if cfg.ACL.Policy != "" {
		files := authz.Files{Model: cfg.ACL.Model, Policy: cfg.ACL.Policy}
		if err := authz.Verify(files); err != nil {
			setting := "acl.policy"
			var file *authz.FileError
			if errors.As(err, &file) && file.Path == files.Model {
				setting = "acl.model"
			}
			found = append(found, config.Finding{Path: setting, Err: err})
		}
	}
	for _, r := range cfg.Register {
		// The node would serve without; nobody who asks wants it to.
		password, tls := serverset(r).Files()
		if password != nil {
			found = append(found, config.Finding{Path: "register." + r.Kind + ".password_file", Err: password})
		}
		if tls != nil {
			found = append(found, config.Finding{Path: "register." + r.Kind + ".tls", Err: tls})
		}
	}
	return cfg.Found(found)
}

// certificate loads the node's own.
func certificate(cfg *config.Node) (*tlsconf.Source, config.Findings) {
	return named.Certificate("tls", cfg.TLS, named.Holder{Role: tlsconf.RoleStorage, Name: cfg.Name, Cluster: cfg.Cluster})
}
