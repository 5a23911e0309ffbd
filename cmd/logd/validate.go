package main

import (
	"github.com/logd-io/logd/config"
	"github.com/logd-io/logd/internal/cli/validate"
	"github.com/logd-io/logd/pkg/agent"
)

// nodes is the kind of configuration that is this program's.
func nodes() validate.Kind {
	return validate.Kind{
		What: "node",
		Long: `Checks files and directories as 'logd agent -config' would read them together,
and reports every problem at once. Like that it puts the environment over them
(LOGD_ and a setting's path in capitals, like LOGD_PORTS_RPC). When all is well with
the settings it opens what they name, as the node would: certificates, which have to
be valid, of role storage and vouched for by the CA, their keys, the gossip key, and
the acl's model and policy. With -no-files it does not. It binds no port, and leaves
data_dir alone. Run it as the user that the node runs as, who has to read all that.`,
		Examples: "validate /etc/logd\nvalidate -no-files -format json node1.hcl",
		Check:    check,
		Typos:    config.NodeTypos,
	}
}

func check(from config.From, files bool) error {
	conf, err := config.LoadNode(from)
	if err != nil || !files {
		return err
	}
	return agent.Check(conf)
}
