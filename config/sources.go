package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// sourceSettings are the kinds of discovery, and what may stand in a block of each.
var sourceSettings = map[string][]string{
	"serf":      nil,
	"static":    {"nodes"},
	"dns":       {"name", "port", "srv", "interval"},
	"zookeeper": {"servers", "path", "user", "password", "password_file", "session_timeout", "tls"},
}

func (v *verdict) discovery(c *Proxy) {
	for _, d := range c.Discovery {
		path := "discovery." + d.Kind
		if _, known := sourceSettings[d.Kind]; !known {
			v.add(path, "unknown source %q: there are \"serf\", \"static\", \"dns\" and \"zookeeper\"", d.Kind)
			continue
		}
		v.strangers(path, d)
		switch d.Kind {
		case "static":
			if len(d.Nodes) == 0 {
				v.add(path+".nodes", "required: the host:port RPC addresses of the nodes")
			}
			v.joins(path+".nodes", d.Nodes)
		case "dns":
			v.dns(path, d)
		case "zookeeper":
			v.zookeeper(path, Register{Servers: d.Servers, Path: d.Path, User: d.User, Password: d.Password, PasswordFile: d.PasswordFile, SessionTimeout: d.SessionTimeout, TLS: d.TLS})
		}
	}
}

// strangers are settings of another kind of source.
func (v *verdict) strangers(path string, d Discovery) {
	value := reflect.ValueOf(d)
	for i := range value.NumField() {
		name, kind := tag(value.Type().Field(i))
		if kind == "label" || value.Field(i).IsZero() || slices.Contains(sourceSettings[d.Kind], name) {
			continue
		}
		owner := ""
		for other, settings := range sourceSettings {
			if slices.Contains(settings, name) {
				owner = other
			}
		}
		hint := ""
		if d.Kind == "serf" && name == "nodes" {
			hint = "; here it is gossip.retry_join"
		}
		v.add(path+"."+name, "belongs to discovery %q%s", owner, hint)
	}
}

func (v *verdict) dns(path string, d Discovery) {
	if v.required(path+".name", d.Name) {
		v.host(path+".name", d.Name)
		if strings.ContainsFunc(d.Name, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("/:[]", r) }) {
			v.add(path+".name", "%q: a DNS name, without a port", d.Name)
		} else if !hasLabels(d.Name) {
			v.add(path+".name", "%q: a DNS name is labels of 1 to 63 bytes with dots between them", d.Name)
		}
	}
	switch {
	case d.SRV && d.Port != 0:
		v.add(path+".port", "the SRV records say the ports: leave it out, or srv")
	case d.SRV:
	case d.Port == 0:
		v.add(path+".port", "required: where the nodes listen, or srv = true where SRV records say it")
	default:
		within(v, path+".port", d.Port, 1, 65535)
	}
	if d.Interval != 0 {
		within(v, path+".interval", d.Interval, time.Second, time.Hour)
	}
}

// hasLabels tells whether a name may be one of DNS, the root of all excepted.
func hasLabels(name string) bool {
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		if label == "" || len(label) > 63 {
			return false
		}
	}
	return true
}

func (v *verdict) register(blocks []Register) {
	for _, r := range blocks {
		path := "register." + r.Kind
		if r.Kind != "zookeeper" {
			v.add(path, "unknown place %q: there is \"zookeeper\"", r.Kind)
			continue
		}
		v.zookeeper(path, r)
	}
}

// zookeeper checks what both ends of a serverset have.
func (v *verdict) zookeeper(path string, r Register) {
	if len(r.Servers) == 0 {
		v.add(path+".servers", "required: the host:port addresses of ZooKeeper's servers")
	}
	v.joins(path+".servers", r.Servers)
	if v.required(path+".path", r.Path) {
		if err := checkZnode(r.Path); err != nil {
			v.add(path+".path", "%v", err)
		}
	}
	given := r.Password != "" || r.PasswordFile != ""
	switch {
	case r.User == "" && given:
		v.add(path+".user", "required beside a password")
	case r.User != "" && !given:
		v.add(path+".password", "required beside user, here or as %s.password_file", path)
	case r.Password != "" && r.PasswordFile != "":
		v.add(path+".password_file", "%s.password is set too, and only one of them can be", path)
	}
	if strings.Contains(r.User, ":") {
		v.add(path+".user", "%q: a colon ends a user's name in ZooKeeper", r.User)
	}
	if r.SessionTimeout != 0 {
		within(v, path+".session_timeout", r.SessionTimeout, time.Second, 5*time.Minute)
	}
	v.tls(path+".tls", r.TLS, false)
}

// checkZnode refuses what is no path of a serverset.
func checkZnode(path string) error {
	if len(path) > 1024 {
		return fmt.Errorf("%d bytes, and at most 1024 are taken", len(path))
	}
	rest, ok := strings.CutPrefix(path, "/")
	if !ok {
		return fmt.Errorf("%q: want an absolute path, like /discovery/prod/logd", path)
	}
	for name := range strings.SplitSeq(rest, "/") {
		if name == "" || name == "." || name == ".." || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return fmt.Errorf("%q: %q is no name in it: printable ASCII without spaces, and neither . nor .. alone", path, name)
		}
	}
	return nil
}
