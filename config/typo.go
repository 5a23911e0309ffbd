package config

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/agext/levenshtein"
)

// What the names of variables begin with.
const (
	nodePrefix  = "LOGD_"
	proxyPrefix = "LOGPROXY_"
)

// ofCommands are variables of our own commands, which are no settings: where they ask,
// and with what certificate.
var ofCommands = []string{"LOGD_ADDR", "LOGD_ADMIN_ADDR", "LOGD_CACERT", "LOGD_CERT", "LOGD_KEY"}

// variable is the name of a setting's variable.
func variable(prefix, path string) string {
	return prefix + strings.ToUpper(strings.ReplaceAll(path, ".", "_"))
}

// Typo is a variable that nobody reads, and nearly is one of ours.
type Typo struct{ Name, Meant string }

func (t Typo) String() string {
	return fmt.Sprintf("%s in the environment is no setting. Did you mean %s?", t.Name, t.Meant)
}

// NodeTypos finds what is probably mistyped in the environment of a node. Other
// variables with its prefix are none of ours to judge: Kubernetes sets LOGD_SERVICE_HOST
// and the like for a Service called logd.
func NodeTypos(environ []string) []Typo {
	return typos(environ, nodePrefix, reflect.ValueOf(Node{}))
}

// ProxyTypos does for a proxy what NodeTypos does for a node.
func ProxyTypos(environ []string) []Typo {
	return typos(environ, proxyPrefix, reflect.ValueOf(Proxy{}))
}

func typos(environ []string, prefix string, settings reflect.Value) (found []Typo) {
	var names []string
	for _, f := range leaves(settings, "") {
		names = append(names, variable(prefix, f.path))
	}
	for _, name := range ofCommands {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		if value == "" || !strings.HasPrefix(name, prefix) {
			continue
		}
		best := tooFar
		var meant string
		for _, known := range names {
			// Much of a short name is another word: Kubernetes sets LOGD_PORT, and LOGD_CERT is ours.
			d := levenshtein.Distance(name, known, nil)
			if short(name) == short(known) {
				d = min(d, 1)
			}
			if d < best && d <= (len(known)-len(prefix))/3 {
				best, meant = d, known
			}
		}
		if 0 < best && best < tooFar {
			found = append(found, Typo{Name: name, Meant: meant})
		}
	}
	return found
}

// short has an address in the shorter of the two ways in which our names say it:
// LOGD_ADMIN_ADDR is one, and LOGPROXY_ADMIN_ADDRESS beside it.
func short(name string) string {
	if s, ok := strings.CutSuffix(name, "_ADDRESS"); ok {
		return s + "_ADDR"
	}
	return name
}

// tooFar is how many letters make another word, as for names in files.
const tooFar = 3
