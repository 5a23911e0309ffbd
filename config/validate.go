package config

import (
	"cmp"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
	"time"

	hclog "github.com/hashicorp/go-hclog"
)

// verdict gathers problems while Validate goes through a configuration.
type verdict struct {
	origins  origins
	problems []Problem
}

func (v *verdict) add(path, format string, args ...any) {
	v.problems = append(v.problems, v.origins.problem(path, format, args...))
}

func (v *verdict) err() error {
	if len(v.problems) == 0 {
		return nil
	}
	return &Error{Problems: v.problems}
}

// minRetained is how many segments retention by size keeps at least: only whole
// ones go, one of them is being written, and one lies across the start.
const minRetained = 4

// Validate reports every problem at once, as an *Error; nil means valid. It
// looks at nothing outside the struct.
func (c *Node) Validate() error {
	v := &verdict{origins: c.origins}
	v.identity(c.Name, c.Cluster)
	v.required("data_dir", c.DataDir)
	if v.required("bind_addr", c.BindAddr) && strings.Contains(c.BindAddr, ":") && net.ParseIP(c.BindAddr) == nil {
		v.add("bind_addr", "%q: a host, without a port", c.BindAddr)
	}
	if ip := net.ParseIP(c.AdvertiseAddr); ip != nil && ip.IsUnspecified() {
		v.add("advertise_addr", "%q cannot be reached by others", c.AdvertiseAddr)
	} else if ip == nil && strings.Contains(c.AdvertiseAddr, ":") {
		v.add("advertise_addr", "%q: a host, without a port", c.AdvertiseAddr)
	}
	v.host("bind_addr", c.BindAddr)
	v.host("advertise_addr", c.AdvertiseAddr)
	v.ports(c.Ports)
	within(v, "bootstrap_expect", c.BootstrapExpect, 0, 99)
	if c.BootstrapExpect == 0 && len(c.RetryJoin) == 0 {
		v.add("bootstrap_expect", "one of bootstrap_expect and retry_join is required: this node could neither form a cluster nor join one")
	}
	v.joins("retry_join", c.RetryJoin)
	v.gossipKey("gossip_key", c.GossipKey, "gossip_key_file", c.GossipKeyFile)
	v.tls("tls", c.TLS, true)
	if _, block := c.origins["acl"]; c.ACL.Policy == "" && (block || c.ACL.Model != "") {
		v.add("acl.policy", "required: the file of rules. Without an acl block, roles decide alone")
	}
	within(v, "raft.heartbeat_timeout", c.Raft.HeartbeatTimeout, 10*time.Millisecond, time.Minute)
	within(v, "log.segment_size", c.Log.SegmentSize, 64*KiB, GiB)
	within(v, "log.cache_size", c.Log.CacheSize, MiB, 64*GiB)
	within(v, "log.max_record_size", c.Log.MaxRecordSize, 1, MaxRecordSize)
	within(v, "log.max_in_flight", c.Log.MaxInFlight, 2*MiB, 4*GiB)
	if c.Log.Reserve != 0 {
		within(v, "log.reserve", c.Log.Reserve, MiB, 16*1024*GiB)
	}
	if c.Log.ScrubRate != 0 {
		within(v, "log.scrub_rate", c.Log.ScrubRate, 16*KiB, 16*GiB)
	}
	if c.Raft.AnnounceInterval != 0 {
		within(v, "raft.announce_interval", c.Raft.AnnounceInterval, 100*time.Millisecond, time.Hour)
	}
	if c.Retain.Age != 0 { // clocks may differ by a minute
		within(v, "retain.age", c.Retain.Age, time.Minute, 100*365*24*time.Hour)
	}
	if least := minRetained * c.Log.SegmentSize; c.Retain.Size != 0 && c.Retain.Size < least {
		v.add("retain.size", "%v is too little: at least %d segments are needed, %v (log.segment_size is %v)",
			c.Retain.Size, minRetained, least, c.Log.SegmentSize)
	}
	within(v, "limits.max_concurrent_streams", c.Limits.MaxConcurrentStreams, 1, 1_000_000)
	within(v, "limits.handshake_timeout", c.Limits.HandshakeTimeout, 100*time.Millisecond, time.Minute)
	if c.Limits.ConnectionAge != 0 {
		within(v, "limits.connection_age", c.Limits.ConnectionAge, time.Second, 30*24*time.Hour)
	}
	within(v, "limits.send_timeout", c.Limits.SendTimeout, 100*time.Millisecond, time.Hour)
	v.rates(c.Limits.ProduceRate, c.Limits.ConsumeRate, c.Limits.RequestRate)
	within(v, "autopilot.dead_server_grace", c.Autopilot.DeadServerGrace, time.Second, 30*24*time.Hour)
	within(v, "autopilot.min_quorum", c.Autopilot.MinQuorum, 1, 99)
	v.register(c.Register)
	within(v, "drain_timeout", c.DrainTimeout, 0, time.Hour)
	v.telemetry(c.Telemetry)
	v.logging(c.LogLevel, c.LogFormat)
	return v.err()
}

// Validate reports every problem at once, as an *Error; nil means valid. It
// looks at nothing outside the struct.
func (c *Proxy) Validate() error {
	v := &verdict{origins: c.origins}
	v.identity(c.Name, c.Cluster)
	v.listener(c.Listener)
	v.bind("admin.address", c.Admin.Address)
	v.tls("upstream.tls", c.Upstream.TLS, true)
	v.discovery(c)
	if c.UsesGossip() {
		v.bind("gossip.address", c.Gossip.Address)
		if len(c.Gossip.RetryJoin) == 0 {
			v.add("gossip.retry_join", "required: the gossip address of at least one node")
		}
		v.host("gossip.advertise_address", c.Gossip.AdvertiseAddress)
		v.joins("gossip.retry_join", c.Gossip.RetryJoin)
		v.gossipKey("gossip.key", c.Gossip.Key, "gossip.key_file", c.Gossip.KeyFile)
	}
	within(v, "produce.hold_timeout", c.Produce.HoldTimeout, 0, time.Hour)
	within(v, "produce.max_held", c.Produce.MaxHeld, 1, 10_000_000)
	within(v, "produce.max_held_bytes", c.Produce.MaxHeldBytes, 2*MiB, 64*GiB)
	v.oneOf("consume.balance", c.Consume.Balance, Policies()...)
	within(v, "consume.max_lag", c.Consume.MaxLag, 0, 2_000_000_000)
	within(v, "session.max_sessions", c.Session.MaxSessions, 1, 10_000_000)
	if c.Limits.MaxConnections != 0 {
		within(v, "limits.max_connections", c.Limits.MaxConnections, 2, 1<<20)
	}
	within(v, "limits.max_concurrent_streams", c.Limits.MaxConcurrentStreams, 1, 1_000_000)
	within(v, "limits.max_calls", c.Limits.MaxCalls, 2, 10_000_000)
	within(v, "limits.max_unread", c.Limits.MaxUnread, 1, 1_000_000)
	within(v, "limits.handshake_timeout", c.Limits.HandshakeTimeout, 100*time.Millisecond, time.Minute)
	if c.Limits.Memory != 0 {
		within(v, "limits.memory", c.Limits.Memory, 64*MiB, 16*1024*GiB)
	}
	v.rates(c.Limits.ProduceRate, c.Limits.ConsumeRate, c.Limits.RequestRate)
	v.oneOf("get_servers", c.GetServers, "proxy", "cluster")
	if strings.ContainsFunc(c.Principal, func(r rune) bool { return r <= ' ' || r > '~' }) {
		v.add("principal", "%q: only printable ASCII without spaces", c.Principal)
	}
	within(v, "drain_delay", c.DrainDelay, 0, time.Hour)
	within(v, "drain_timeout", c.DrainTimeout, 0, time.Hour)
	v.telemetry(c.Telemetry)
	v.logging(c.LogLevel, c.LogFormat)
	return v.err()
}

// rates wants a record of the largest kind a second at least: who had to wait for one
// longer would be taken for dead.
func (v *verdict) rates(produce, consume Size, requests int) {
	for _, rate := range []struct {
		path  string
		value Size
	}{{"limits.produce_rate", produce}, {"limits.consume_rate", consume}} {
		if rate.value != 0 {
			within(v, rate.path, rate.value, MiB, 1024*GiB)
		}
	}
	if requests != 0 {
		within(v, "limits.request_rate", requests, 10, 10_000_000)
	}
}

func (v *verdict) required(path, value string) bool {
	if value == "" {
		v.add(path, "required")
	}
	return value != ""
}

// identityPattern is what may stand in a certificate's role URI.
var identityPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

func (v *verdict) identity(name, cluster string) {
	for _, part := range []struct{ path, value string }{{"name", name}, {"cluster", cluster}} {
		if part.value != "" && !identityPattern.MatchString(part.value) {
			v.add(part.path, "%q: letters, digits and inside it . _ - only, at most 100", part.value)
		}
	}
}

// maxHost is the longest DNS name. What a node tells of itself has its host in it,
// and gossip carries 512 bytes of that.
const maxHost = 253

func (v *verdict) host(path, host string) {
	if len(host) > maxHost {
		v.add(path, "%d bytes: a host has at most %d", len(host), maxHost)
	}
}

func (v *verdict) ports(p Ports) {
	seen := map[int]string{}
	for _, port := range []struct {
		path  string
		value int
	}{{"ports.rpc", p.RPC}, {"ports.gossip", p.Gossip}, {"ports.admin", p.Admin}} {
		within(v, port.path, port.value, 0, 65535)
		if other := seen[port.value]; other != "" {
			v.add(port.path, "%d is already %s", port.value, other)
		}
		if port.value != 0 {
			seen[port.value] = port.path
		}
	}
}

func (v *verdict) joins(path string, addrs []string) {
	for _, addr := range addrs {
		if err := checkHostPort(addr, false); err != nil {
			v.add(path, "%v", err)
		}
	}
}

func (v *verdict) gossipKey(path, key, filePath, file string) {
	switch {
	case key == "" && file == "":
		v.add(path, "required, here or as %s: make one with `logd keygen`", filePath)
	case key != "" && file != "":
		v.add(filePath, "%s is set too, and only one of them can be", path)
	case key != "":
		if _, err := parseGossipKey(key); err != nil {
			v.add(path, "%v", err) // never the key itself
		}
	}
}

func (v *verdict) tls(path string, t TLS, required bool) {
	if t.IsZero() && !required {
		return
	}
	v.required(path+".ca_file", t.CAFile)
	v.required(path+".cert_file", t.CertFile)
	v.required(path+".key_file", t.KeyFile)
}

func (v *verdict) listener(l Listener) {
	const path = "listener.address"
	v.tls("listener.tls", l.TLS, false)
	if !v.required(path, l.Address) {
		return
	}
	network, address := l.Network()
	if network == "unix" {
		if !strings.HasPrefix(address, "/") {
			v.add(path, "%q: the path of a unix socket must be absolute", l.Address)
		}
		return
	}
	if err := checkHostPort(address, true); err != nil {
		v.add(path, "%v", err)
		return
	}
	if host, _, _ := net.SplitHostPort(address); l.TLS.IsZero() && !isLoopback(host) {
		v.add(path, "%q can be reached from outside this machine, where plaintext is not served: bind a loopback address or a unix socket, or add a tls block to listener", l.Address)
	}
}

func (v *verdict) bind(path, addr string) {
	if v.required(path, addr) {
		if err := checkHostPort(addr, true); err != nil {
			v.add(path, "%v", err)
		}
	}
}

func (v *verdict) logging(level, format string) {
	if hclog.LevelFromString(level) == hclog.NoLevel {
		v.add("log_level", "%q: one of trace, debug, info, warn, error, off", level)
	}
	v.oneOf("log_format", format, "text", "json")
}

func (v *verdict) oneOf(path, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		v.add(path, "%q: must be %s", value, strings.Join(allowed, " or "))
	}
}

// within reports a value outside [least, most].
func within[T cmp.Ordered](v *verdict, path string, value, least, most T) {
	if value < least || value > most {
		said := fmt.Sprint(value)
		if beyond := v.origins[path].beyond; beyond != nil {
			said = beyond.written
		}
		v.add(path, "%s is out of range: %v to %v", said, least, most)
	}
}
