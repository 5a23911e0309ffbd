package main

import (
	"github.com/logd-io/logd/config"
	"github.com/logd-io/logd/internal/cli/validate"
	"github.com/logd-io/logd/pkg/proxy"
)

// proxies is the kind of configuration that is this program's.
func proxies() validate.Kind {
	return validate.Kind{
		What: "proxy",
		Long: `Checks files and directories as 'logproxy agent -config' would read them together,
and reports every problem at once. Like that it puts the environment over them
(LOGPROXY_ and a setting's path in capitals, like LOGPROXY_LISTENER_ADDRESS). When all
is well with the settings it opens what they name, as the proxy would: certificates,
which have to be valid, of role proxy for nodes and vouched for by the CA, their keys,
and the gossip key. With -no-files it does not. It binds no port, and leaves data_dir
alone. Run it as the user that the proxy runs as, who has to read all that.`,
		Examples: "validate /etc/logproxy\nvalidate -no-files -format json proxy.hcl",
		Check:    check,
		Typos:    config.ProxyTypos,
	}
}

func check(from config.From, files bool) error {
	conf, err := config.LoadProxy(from)
	if err != nil || !files {
		return err
	}
	return proxy.Check(conf)
}
