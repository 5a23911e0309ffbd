package config_test

import (
	"bytes"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/config"
)

func validNode() config.Node {
	c := config.DefaultNode()
	c.DataDir = "/data"
	c.BootstrapExpect = 3
	c.GossipKey = testKey
	c.TLS = config.TLS{CAFile: "ca", CertFile: "cert", KeyFile: "key"}
	return c
}

func validProxy() config.Proxy {
	c := config.DefaultProxy()
	c.Gossip.RetryJoin = []string{"127.0.0.1:8401"}
	c.Gossip.Key = testKey
	c.Upstream.TLS = config.TLS{CAFile: "ca", CertFile: "cert", KeyFile: "key"}
	return c
}

func TestValidateNode(t *testing.T) {
	c := validNode()
	require.NoError(t, c.Validate())

	tests := map[string]struct {
		change func(*config.Node)
		path   string // of the one problem
	}{
		"no data directory":           {func(c *config.Node) { c.DataDir = "" }, "data_dir"},
		"slash in name":               {func(c *config.Node) { c.Name = "a/b" }, "name"},
		"space in cluster":            {func(c *config.Node) { c.Cluster = "a b" }, "cluster"},
		"bind with port":              {func(c *config.Node) { c.BindAddr = "10.0.0.1:8400" }, "bind_addr"},
		"advertise unspecified":       {func(c *config.Node) { c.AdvertiseAddr = "::" }, "advertise_addr"},
		"bind a name with no end":     {func(c *config.Node) { c.BindAddr = strings.Repeat("a.", 127) }, "bind_addr"},
		"advertise a name of 254":     {func(c *config.Node) { c.AdvertiseAddr = strings.Repeat("a", 254) }, "advertise_addr"},
		"advertise with port":         {func(c *config.Node) { c.AdvertiseAddr = "db-0:8400" }, "advertise_addr"},
		"two ports the same":          {func(c *config.Node) { c.Ports.Admin = c.Ports.RPC }, "ports.admin"},
		"endpoint without a scheme":   {func(c *config.Node) { c.Telemetry.OTLPEndpoint = "127.0.0.1:4317" }, "telemetry.otlp_endpoint"},
		"sampling more than all":      {func(c *config.Node) { c.Telemetry.SampleRatio = 1.5 }, "telemetry.sample_ratio"},
		"negative port":               {func(c *config.Node) { c.Ports.Gossip = -1 }, "ports.gossip"},
		"nobody to join":              {func(c *config.Node) { c.BootstrapExpect = 0 }, "bootstrap_expect"},
		"join address":                {func(c *config.Node) { c.RetryJoin = []string{"a:b"} }, "retry_join"},
		"join without a port":         {func(c *config.Node) { c.RetryJoin = []string{"logd-0"} }, "retry_join"},
		"empty join address":          {func(c *config.Node) { c.RetryJoin = []string{""} }, "retry_join"},
		"no gossip key":               {func(c *config.Node) { c.GossipKey = "" }, "gossip_key"},
		"short gossip key":            {func(c *config.Node) { c.GossipKey = "c2hvcnQ=" }, "gossip_key"},
		"gossip key of 16 bytes":      {func(c *config.Node) { c.GossipKey = base64.StdEncoding.EncodeToString(make([]byte, 16)) }, "gossip_key"},
		"two gossip keys":             {func(c *config.Node) { c.GossipKeyFile = "/k" }, "gossip_key_file"},
		"no key file":                 {func(c *config.Node) { c.TLS.KeyFile = "" }, "tls.key_file"},
		"a model without a policy":    {func(c *config.Node) { c.ACL.Model = "m" }, "acl.policy"},
		"heartbeat too short":         {func(c *config.Node) { c.Raft.HeartbeatTimeout = time.Millisecond }, "raft.heartbeat_timeout"},
		"record larger than allowed":  {func(c *config.Node) { c.Log.MaxRecordSize = config.MiB }, "log.max_record_size"},
		"tiny reserve":                {func(c *config.Node) { c.Log.Reserve = config.KiB }, "log.reserve"},
		"negative reserve":            {func(c *config.Node) { c.Log.Reserve = -1 }, "log.reserve"},
		"scrub that never ends":       {func(c *config.Node) { c.Log.ScrubRate = config.KiB }, "log.scrub_rate"},
		"negative scrub rate":         {func(c *config.Node) { c.Log.ScrubRate = -1 }, "log.scrub_rate"},
		"negative segment":            {func(c *config.Node) { c.Log.SegmentSize = -1 }, "log.segment_size"},
		"announcing too often":        {func(c *config.Node) { c.Raft.AnnounceInterval = time.Millisecond }, "raft.announce_interval"},
		"negative announcing":         {func(c *config.Node) { c.Raft.AnnounceInterval = -1 }, "raft.announce_interval"},
		"age below what clocks err":   {func(c *config.Node) { c.Retain.Age = 59 * time.Second }, "retain.age"},
		"negative age":                {func(c *config.Node) { c.Retain.Age = -time.Hour }, "retain.age"},
		"age of centuries":            {func(c *config.Node) { c.Retain.Age = 200 * 365 * 24 * time.Hour }, "retain.age"},
		"three segments retained":     {func(c *config.Node) { c.Retain.Size = 3 * c.Log.SegmentSize }, "retain.size"},
		"negative size retained":      {func(c *config.Node) { c.Retain.Size = -1 }, "retain.size"},
		"less than a record a second": {func(c *config.Node) { c.Limits.ProduceRate = config.MiB - 1 }, "limits.produce_rate"},
		"negative rate":               {func(c *config.Node) { c.Limits.ConsumeRate = -1 }, "limits.consume_rate"},
		"hardly a request":            {func(c *config.Node) { c.Limits.RequestRate = 1 }, "limits.request_rate"},
		"log level":                   {func(c *config.Node) { c.LogLevel = "loud" }, "log_level"},
		"log format":                  {func(c *config.Node) { c.LogFormat = "xml" }, "log_format"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := validNode()
			tt.change(&c)
			requireOneProblem(t, c.Validate(), tt.path)
		})
	}
}

func TestValidateProxy(t *testing.T) {
	c := validProxy()
	require.NoError(t, c.Validate())

	tests := map[string]struct {
		change func(*config.Proxy)
		path   string
	}{
		"plaintext on all interfaces": {func(c *config.Proxy) { c.Listener.Address = "0.0.0.0:8410" }, "listener.address"},
		"plaintext without a host":    {func(c *config.Proxy) { c.Listener.Address = ":8410" }, "listener.address"},
		"plaintext on IPv6 any":       {func(c *config.Proxy) { c.Listener.Address = "[::]:8410" }, "listener.address"},
		"plaintext on a private one":  {func(c *config.Proxy) { c.Listener.Address = "10.1.2.3:8410" }, "listener.address"},
		"plaintext on a name":         {func(c *config.Proxy) { c.Listener.Address = "sidecar:8410" }, "listener.address"},
		"relative socket":             {func(c *config.Proxy) { c.Listener.Address = "unix://sock" }, "listener.address"},
		"no listener port":            {func(c *config.Proxy) { c.Listener.Address = "127.0.0.1" }, "listener.address"},
		"half a listener tls":         {func(c *config.Proxy) { c.Listener.TLS = config.TLS{CAFile: "a", CertFile: "b"} }, "listener.tls.key_file"},
		"no upstream key":             {func(c *config.Proxy) { c.Upstream.TLS.KeyFile = "" }, "upstream.tls.key_file"},
		"nobody to join":              {func(c *config.Proxy) { c.Gossip.RetryJoin = nil }, "gossip.retry_join"},
		"advertise a name of 254":     {func(c *config.Proxy) { c.Gossip.AdvertiseAddress = strings.Repeat("a", 254) }, "gossip.advertise_address"},
		"no gossip key":               {func(c *config.Proxy) { c.Gossip.Key = "" }, "gossip.key"},
		"unknown discovery":           {func(c *config.Proxy) { c.Discovery = []config.Discovery{{Kind: "consul"}} }, "discovery.consul"},
		"static without nodes":        {func(c *config.Proxy) { c.Discovery = []config.Discovery{{Kind: "static"}} }, "discovery.static.nodes"},
		"static without port": {func(c *config.Proxy) {
			c.Discovery = []config.Discovery{{Kind: "static", Nodes: []string{"host"}}}
		}, "discovery.static.nodes"},
		"serf with nodes": {func(c *config.Proxy) { c.Discovery = []config.Discovery{{Kind: "serf", Nodes: []string{"a:1"}}} }, "discovery.serf.nodes"},
		"policy":          {func(c *config.Proxy) { c.Consume.Balance = "random" }, "consume.balance"},
		"negative lag":    {func(c *config.Proxy) { c.Consume.MaxLag = -1 }, "consume.max_lag"},
		"low rate":        {func(c *config.Proxy) { c.Limits.ConsumeRate = config.KiB }, "limits.consume_rate"},
		"negative rate":   {func(c *config.Proxy) { c.Limits.RequestRate = -1 }, "limits.request_rate"},
		"get_servers":     {func(c *config.Proxy) { c.GetServers = "me" }, "get_servers"},
		"principal":       {func(c *config.Proxy) { c.Principal = "a\nb" }, "principal"},
		"admin":           {func(c *config.Proxy) { c.Admin.Address = "8412" }, "admin.address"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := validProxy()
			tt.change(&c)
			requireOneProblem(t, c.Validate(), tt.path)
		})
	}
}

func TestPoliciesThatAreKnown(t *testing.T) {
	c := validProxy()
	for _, name := range config.Policies() {
		c.Consume.Balance = name
		require.NoError(t, c.Validate())
	}
	for _, name := range []string{"", "random", "Leader", "round-robin"} {
		c.Consume.Balance = name
		requireOneProblem(t, c.Validate(), "consume.balance")
		require.ErrorContains(t, c.Validate(), "must be consistent_hash or leader or least_request or round_robin")
	}
}

func TestListenersThatAreAllowed(t *testing.T) {
	tls := config.TLS{CAFile: "ca", CertFile: "cert", KeyFile: "key"}
	for _, l := range []config.Listener{
		{Address: "127.0.0.1:8410"}, {Address: "127.9.9.9:0"}, {Address: "[::1]:8410"}, {Address: "localhost:8410"},
		{Address: "/run/log.sock"}, {Address: "unix:///run/log.sock"},
		{Address: "0.0.0.0:8410", TLS: tls}, {Address: ":8410", TLS: tls},
	} {
		c := validProxy()
		c.Listener = l
		require.NoError(t, c.Validate(), l.Address)
	}
}

func TestValidateSources(t *testing.T) {
	zoo := config.Discovery{Kind: "zookeeper", Servers: []string{"zk1:2181"}, Path: "/discovery/prod/logd"}
	dns := config.Discovery{Kind: "dns", Name: "logd.default.svc", Port: 8400}
	srv := config.Discovery{Kind: "dns", Name: "_logd._tcp.logd.default.svc.", SRV: true, Interval: time.Minute}
	serf := config.Discovery{Kind: "serf"}
	tests := map[string]struct {
		of     config.Discovery
		change func(*config.Discovery)
		path   string // "" is valid
	}{
		"zookeeper":                {zoo, func(*config.Discovery) {}, ""},
		"zookeeper with a user":    {zoo, func(d *config.Discovery) { d.User, d.PasswordFile = "logd", "/k" }, ""},
		"no servers":               {zoo, func(d *config.Discovery) { d.Servers = nil }, "discovery.zookeeper.servers"},
		"a server without a port":  {zoo, func(d *config.Discovery) { d.Servers = []string{"zk1"} }, "discovery.zookeeper.servers"},
		"no path":                  {zoo, func(d *config.Discovery) { d.Path = "" }, "discovery.zookeeper.path"},
		"the root":                 {zoo, func(d *config.Discovery) { d.Path = "/" }, "discovery.zookeeper.path"},
		"a relative path":          {zoo, func(d *config.Discovery) { d.Path = "discovery" }, "discovery.zookeeper.path"},
		"a path that ends in /":    {zoo, func(d *config.Discovery) { d.Path = "/discovery/" }, "discovery.zookeeper.path"},
		"a path with ..":           {zoo, func(d *config.Discovery) { d.Path = "/a/../b" }, "discovery.zookeeper.path"},
		"a path of 1025":           {zoo, func(d *config.Discovery) { d.Path = "/" + strings.Repeat("a", 1024) }, "discovery.zookeeper.path"},
		"a password alone":         {zoo, func(d *config.Discovery) { d.Password = "p" }, "discovery.zookeeper.user"},
		"a user alone":             {zoo, func(d *config.Discovery) { d.User = "u" }, "discovery.zookeeper.password"},
		"two passwords":            {zoo, func(d *config.Discovery) { d.User, d.Password, d.PasswordFile = "u", "p", "/p" }, "discovery.zookeeper.password_file"},
		"a user with a colon":      {zoo, func(d *config.Discovery) { d.User, d.Password = "u:v", "p" }, "discovery.zookeeper.user"},
		"a hasty session":          {zoo, func(d *config.Discovery) { d.SessionTimeout = time.Millisecond }, "discovery.zookeeper.session_timeout"},
		"half a tls":               {zoo, func(d *config.Discovery) { d.TLS = config.TLS{CAFile: "a", CertFile: "b"} }, "discovery.zookeeper.tls.key_file"},
		"zookeeper with a port":    {zoo, func(d *config.Discovery) { d.Port = 1 }, "discovery.zookeeper.port"},
		"dns":                      {dns, func(*config.Discovery) {}, ""},
		"srv":                      {srv, func(*config.Discovery) {}, ""},
		"no name":                  {dns, func(d *config.Discovery) { d.Name = "" }, "discovery.dns.name"},
		"a name with a port":       {dns, func(d *config.Discovery) { d.Name = "a:8400" }, "discovery.dns.name"},
		"a name of dots":           {dns, func(d *config.Discovery) { d.Name = ".." }, "discovery.dns.name"},
		"the root of all names":    {dns, func(d *config.Discovery) { d.Name = "." }, "discovery.dns.name"},
		"a name with a hole":       {dns, func(d *config.Discovery) { d.Name = "a..b" }, "discovery.dns.name"},
		"a label of 64":            {dns, func(d *config.Discovery) { d.Name = strings.Repeat("a", 64) + ".b" }, "discovery.dns.name"},
		"a name of 254":            {dns, func(d *config.Discovery) { d.Name = strings.Repeat("aa.", 84) + "aa" }, "discovery.dns.name"},
		"no port":                  {dns, func(d *config.Discovery) { d.Port = 0 }, "discovery.dns.port"},
		"a port beyond":            {dns, func(d *config.Discovery) { d.Port = 65536 }, "discovery.dns.port"},
		"srv with a port":          {srv, func(d *config.Discovery) { d.Port = 8400 }, "discovery.dns.port"},
		"asked too often":          {dns, func(d *config.Discovery) { d.Interval = time.Millisecond }, "discovery.dns.interval"},
		"dns with servers":         {dns, func(d *config.Discovery) { d.Servers = []string{"a:1"} }, "discovery.dns.servers"},
		"dns with tls":             {dns, func(d *config.Discovery) { d.TLS.CAFile = "a" }, "discovery.dns.tls"},
		"serf with an interval":    {serf, func(d *config.Discovery) { d.Interval = time.Second }, "discovery.serf.interval"},
		"serf with zookeeper's":    {serf, func(d *config.Discovery) { d.Path = "/a" }, "discovery.serf.path"},
		"serf with a static's":     {serf, func(d *config.Discovery) { d.Nodes = []string{"a:1"} }, "discovery.serf.nodes"},
		"serf with srv, of course": {serf, func(d *config.Discovery) { d.SRV = true }, "discovery.serf.srv"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c, d := validProxy(), tt.of
			tt.change(&d)
			c.Discovery = []config.Discovery{d}
			if tt.path == "" {
				require.NoError(t, c.Validate())
				return
			}
			requireOneProblem(t, c.Validate(), tt.path)
		})
	}
}

func TestValidateRegister(t *testing.T) {
	good := config.Register{Kind: "zookeeper", Servers: []string{"zk1:2181"}, Path: "/discovery/prod/logd"}
	for path, change := range map[string]func(*config.Register){
		"":                               func(*config.Register) {},
		"register.consul":                func(r *config.Register) { r.Kind = "consul" },
		"register.zookeeper.servers":     func(r *config.Register) { r.Servers = nil },
		"register.zookeeper.path":        func(r *config.Register) { r.Path = "x" },
		"register.zookeeper.user":        func(r *config.Register) { r.Password = "p" },
		"register.zookeeper.tls.ca_file": func(r *config.Register) { r.TLS = config.TLS{KeyFile: "a", CertFile: "b"} },
	} {
		c, r := validNode(), good
		change(&r)
		c.Register = []config.Register{r}
		if path == "" {
			require.NoError(t, c.Validate())
			continue
		}
		requireOneProblem(t, c.Validate(), path)
	}
}

func TestWhatIsWrongWithASourceIsSaidAtOnceAndAsItIs(t *testing.T) {
	c := config.DefaultProxy()
	c.Discovery = []config.Discovery{
		{Kind: "dns", Name: "a"},
		{Kind: "zookeeper", Servers: []string{"zk1:2181"}, Path: "/a", User: "u:v", Password: "p", PasswordFile: "/p"},
	}
	err := c.Validate()
	require.ErrorContains(t, err, "discovery.dns.port: required")
	require.ErrorContains(t, err, "or srv")
	require.NotContains(t, err.Error(), "out of range")
	require.ErrorContains(t, err, "discovery.zookeeper.password_file")
	require.ErrorContains(t, err, "discovery.zookeeper.user: ")
}

func TestZooKeepersPasswordIsNeverInAnError(t *testing.T) {
	c := validNode()
	c.Register = []config.Register{{Kind: "zookeeper", User: "a:b", Password: "secret", PasswordFile: "x"}}
	require.NotContains(t, c.Validate().Error(), "secret")
}

func TestStaticDiscoveryNeedsNoGossip(t *testing.T) {
	c := validProxy()
	c.Gossip = config.Gossip{}
	c.Discovery = []config.Discovery{{Kind: "static", Nodes: []string{"a:1"}}}
	require.NoError(t, c.Validate())
	require.False(t, c.UsesGossip())
}

func TestGossipKeyIsNeverInAnError(t *testing.T) {
	c := validNode()
	c.GossipKey = "secret-not-base64"
	require.NotContains(t, c.Validate().Error(), "secret")
}

func TestGossipKeyFile(t *testing.T) {
	c := validNode()
	keys, err := c.GossipKeys()
	require.NoError(t, err)
	require.Len(t, keys, 1)
	require.Len(t, keys[0], config.GossipKeyLen)

	c.GossipKey = ""
	c.GossipKeyFile = write(t, t.TempDir(), "key", testKey+"\n")
	keys, err = c.GossipKeys()
	require.NoError(t, err)
	require.Len(t, keys, 1)
	second := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, config.GossipKeyLen))
	c.GossipKeyFile = write(t, t.TempDir(), "keys", testKey+"\n\n"+second+"\n")
	keys, err = c.GossipKeys()
	require.NoError(t, err)
	require.Len(t, keys, 2)
	require.Equal(t, byte(7), keys[1][0], "the order is kept")
	for text, says := range map[string]string{"\n": "holds none", testKey + "\nshort\n": "keygen"} {
		c.GossipKeyFile = write(t, t.TempDir(), "keys", text)
		_, err = c.GossipKeys()
		require.ErrorContains(t, err, says)
	}

	require.NoError(t, os.Chmod(c.GossipKeyFile, 0o644))
	_, err = c.GossipKeys()
	require.ErrorContains(t, err, "mode")

	c.GossipKeyFile = filepath.Join(t.TempDir(), "none")
	_, err = c.GossipKeys()
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestAdvertiseHost(t *testing.T) {
	c := validNode()
	c.BindAddr = "127.0.0.3"
	host, err := c.AdvertiseHost()
	require.NoError(t, err)
	require.Equal(t, "127.0.0.3", host, "a specific bind address is advertised")

	c.AdvertiseAddr = "db-0.example"
	host, err = c.AdvertiseHost()
	require.NoError(t, err)
	require.Equal(t, "db-0.example", host)

	p := validProxy()
	p.Gossip.AdvertiseAddress = "sidecar.example:9000"
	host, err = p.AdvertiseHost()
	require.NoError(t, err)
	require.Equal(t, "sidecar.example", host)
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]config.Size{
		"0": 0, "7": 7, "7B": 7, "1KiB": config.KiB, "64MiB": 64 * config.MiB, " 2 GiB ": 2 * config.GiB, "1TiB": 1 << 40,
	} {
		got, err := config.ParseSize(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
		again, err := config.ParseSize(got.String())
		require.NoError(t, err)
		require.Equal(t, got, again)
	}
	for _, text := range []string{"", "MiB", "-1", "1.5MiB", "64MB", "64M", "9999999999TiB", "0x10", "1 2"} {
		_, err := config.ParseSize(text)
		require.Error(t, err, text)
	}
}

func requireOneProblem(t *testing.T, err error, path string) {
	t.Helper()
	var e *config.Error
	require.ErrorAs(t, err, &e)
	require.Len(t, e.Problems, 1, "%v", err)
	require.Equal(t, path, e.Problems[0].Path)
}
