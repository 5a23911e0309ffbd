package harness

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The default ports of logd and logproxy; every process has an address of its
// own, so that they need not differ.
const (
	rpcPort    = 8400
	gossipPort = 8401
	adminPort  = 8402

	proxyPort       = 8410
	proxyGossipPort = 8411
	proxyAdminPort  = 8412
)

// Options says what a Cluster is made of.
type Options struct {
	Bin   string // folder with logd and logproxy
	Dir   string // where certificates, configurations, data and logs go
	Nodes int    // storage nodes that bootstrap together; 0: 3
	// Heartbeat is Raft's; 0 leaves the default. Slow machines and race builds
	// want a second.
	Heartbeat time.Duration
	// NodeConfig and ProxyConfig are appended to every configuration file.
	NodeConfig  string
	ProxyConfig string
	// Hosts places the processes elsewhere than on loopback addresses of their
	// own; nil leaves them there.
	Hosts Hosts
}

// Hosts are test hosts, one a process.
type Hosts interface {
	// Address is the address of host i: nodes count from 1, proxies from 101.
	Address(i int) string
	// Command is how a program is started on host i.
	Command(i int, argv []string) ([]string, error)
}

// Cluster is a set of processes on addresses 127.a.b.1 and up, a and b drawn at
// random, so that clusters do not meet.
type Cluster struct {
	opt   Options
	net   [2]byte
	key   string
	Nodes []*Node
	Proxy []*Proxy
}

// Node is one logd process.
type Node struct {
	*Process
	Name    string
	RPC     string // host:port
	Gossip  string
	Admin   string
	DataDir string
	Config  string
}

// Proxy is one logproxy process.
type Proxy struct {
	*Process
	Name   string
	Addr   string // of the plaintext listener: host:port, or unix:///path
	Admin  string
	Config string
}

// New makes certificates and configurations for a cluster. Nothing is started.
func New(opt Options) (*Cluster, error) {
	if opt.Nodes == 0 {
		opt.Nodes = 3
	}
	c := &Cluster{opt: opt}
	var raw [34]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return nil, err
	}
	// 127.0.x.x is left to people and their development clusters.
	c.net = [2]byte{raw[0]%254 + 1, raw[1]}
	c.key = base64.StdEncoding.EncodeToString(raw[2:])
	if err := c.createCA(); err != nil {
		return nil, err
	}
	for range opt.Nodes {
		if _, err := c.AddNode(opt.Nodes); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Host is the address of host i. Nodes count from 1, proxies from 101; what lies
// above 200 is for others that take part.
func (c *Cluster) Host(i int) string {
	if c.opt.Hosts != nil {
		return c.opt.Hosts.Address(i)
	}
	return net.IPv4(127, c.net[0], c.net[1], byte(i)).String()
}

// AddNode makes one more node, without starting it. expect is its
// bootstrap_expect: 0 for a node that joins a cluster that exists.
func (c *Cluster) AddNode(expect int) (*Node, error) {
	i := len(c.Nodes) + 1
	name, host := fmt.Sprintf("node%d", i), c.Host(i)
	n := &Node{
		Name:    name,
		RPC:     net.JoinHostPort(host, fmt.Sprint(rpcPort)),
		Gossip:  net.JoinHostPort(host, fmt.Sprint(gossipPort)),
		Admin:   net.JoinHostPort(host, fmt.Sprint(adminPort)),
		DataDir: filepath.Join(c.opt.Dir, name),
		Config:  filepath.Join(c.opt.Dir, name+".hcl"),
	}
	cert, err := c.createCert("storage", name, host)
	if err != nil {
		return nil, err
	}
	var join []string
	for j := range min(3, c.opt.Nodes) {
		join = append(join, strconv.Quote(c.gossip(j+1)))
	}
	heartbeat := ""
	if c.opt.Heartbeat > 0 {
		heartbeat = fmt.Sprintf("raft { heartbeat_timeout = %q }\n", c.opt.Heartbeat.String())
	}
	text := fmt.Sprintf(`name             = %q
cluster          = %q
data_dir         = %q
bind_addr        = %q
bootstrap_expect = %d
retry_join       = [%s]
gossip_key       = %q
log_level        = "info"

tls {
  ca_file   = %q
  cert_file = %q
  key_file  = %q
}
%s%s`, name, clusterName, n.DataDir, host, expect,
		strings.Join(join, ", "), c.key, cert.CA, cert.Cert, cert.Key, heartbeat, c.opt.NodeConfig)
	if err := os.WriteFile(n.Config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	n.Process, err = c.process(i, name, filepath.Join(c.opt.Bin, "logd"), "agent", "-config", n.Config)
	if err != nil {
		return nil, err
	}
	c.Nodes = append(c.Nodes, n)
	return n, nil
}

func (c *Cluster) process(i int, name string, argv ...string) (*Process, error) {
	if c.opt.Hosts != nil {
		var err error
		if argv, err = c.opt.Hosts.Command(i, argv); err != nil {
			return nil, err
		}
	}
	return &Process{Name: name, Path: argv[0], Args: argv[1:], Log: filepath.Join(c.opt.Dir, "log", name+".log")}, nil
}

func (c *Cluster) gossip(i int) string {
	return net.JoinHostPort(c.Host(i), fmt.Sprint(gossipPort))
}

// AddProxy makes one more proxy, without starting it. extra is appended to its
// configuration.
func (c *Cluster) AddProxy(extra string) (*Proxy, error) {
	i := len(c.Proxy) + 1
	name, host := fmt.Sprintf("proxy%d", i), c.Host(100+i)
	p := &Proxy{
		Name:   name,
		Addr:   c.listener(name, host),
		Admin:  net.JoinHostPort(host, fmt.Sprint(proxyAdminPort)),
		Config: filepath.Join(c.opt.Dir, name+".hcl"),
	}
	cert, err := c.createCert("proxy", name, host)
	if err != nil {
		return nil, err
	}
	text := fmt.Sprintf(`name      = %q
cluster   = %q
log_level = "info"

listener {
  address = %q
}

gossip {
  address    = %q
  retry_join = [%q, %q, %q]
  key        = %q
}

admin {
  address = %q
}

upstream {
  tls {
    ca_file   = %q
    cert_file = %q
    key_file  = %q
  }
}
%s
%s`, name, clusterName, p.Addr, net.JoinHostPort(host, fmt.Sprint(proxyGossipPort)),
		c.gossip(1), c.gossip(2), c.gossip(3), c.key, p.Admin, cert.CA, cert.Cert, cert.Key, c.opt.ProxyConfig, extra)
	if err := os.WriteFile(p.Config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	p.Process, err = c.process(100+i, name, filepath.Join(c.opt.Bin, "logproxy"), "agent", "-config", p.Config)
	if err != nil {
		return nil, err
	}
	c.Proxy = append(c.Proxy, p)
	return p, nil
}

// listener is where a proxy's clients come in: on a loopback address, or where
// hosts differ on a unix socket, since plaintext goes nowhere else.
func (c *Cluster) listener(name, host string) string {
	if c.opt.Hosts != nil {
		return "unix://" + filepath.Join(c.opt.Dir, name+".sock")
	}
	return net.JoinHostPort(host, fmt.Sprint(proxyPort))
}

// Start starts every process that is not running.
func (c *Cluster) Start() error {
	var errs []error
	for _, p := range c.processes() {
		if !p.Running() {
			errs = append(errs, p.Start())
		}
	}
	return errors.Join(errs...)
}

// readyIn is how long Up waits. A cluster is there in a second or two.
const readyIn = 30 * time.Second

// Up makes a cluster with one proxy, starts it, and waits until all of it can
// serve and a node leads. A cluster that it returns is to be closed, also when
// it comes with an error.
func Up(ctx context.Context, opt Options) (c *Cluster, proxy *Proxy, leader *Node, err error) {
	if c, err = New(opt); err != nil {
		return nil, nil, nil, err
	}
	if proxy, err = c.AddProxy(""); err != nil {
		return c, nil, nil, err
	}
	if err = c.Start(); err != nil {
		return c, nil, nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, readyIn, fmt.Errorf("%s have passed", readyIn))
	defer cancel()
	if err = c.Ready(ctx); err != nil {
		return c, nil, nil, err
	}
	leader, err = c.Leader(ctx)
	return c, proxy, leader, err
}

// Close kills what still runs and waits for it.
func (c *Cluster) Close() error {
	var errs []error
	for _, p := range c.processes() {
		if p.Running() {
			errs = append(errs, p.Kill())
		}
	}
	return errors.Join(errs...)
}

func (c *Cluster) processes() []*Process {
	var all []*Process
	for _, n := range c.Nodes {
		all = append(all, n.Process)
	}
	for _, p := range c.Proxy {
		all = append(all, p.Process)
	}
	return all
}

// Leader waits until a running node says that it leads, and returns it.
func (c *Cluster) Leader(ctx context.Context) (*Node, error) {
	var leader *Node
	err := Until(ctx, func() error {
		for _, n := range c.Nodes {
			if !n.Running() {
				continue
			}
			st, err := c.Stats(ctx, n)
			if err == nil && st.GetState() == "leader" && st.GetReady() {
				leader = n
				return nil
			}
		}
		return errors.New("no node says that it leads")
	})
	return leader, err
}

// Ready waits until every running node has caught up with a leader and every
// running proxy can serve.
func (c *Cluster) Ready(ctx context.Context) error {
	for _, n := range c.Nodes {
		if n.Running() {
			if err := c.NodeReady(ctx, n); err != nil {
				return err
			}
		}
	}
	for _, p := range c.Proxy {
		if p.Running() {
			if err := c.ProxyReady(ctx, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// NodeReady waits until n has caught up with a leader.
func (c *Cluster) NodeReady(ctx context.Context, n *Node) error {
	return c.until(ctx, n.Process, func() error { return httpOK(ctx, "http://"+n.Admin+"/readyz") })
}

// ProxyReady waits until p can serve.
func (c *Cluster) ProxyReady(ctx context.Context, p *Proxy) error {
	return c.until(ctx, p.Process, func() error { return httpOK(ctx, "http://"+p.Admin+"/readyz") })
}

func (c *Cluster) until(ctx context.Context, p *Process, ok func() error) error {
	err := Until(ctx, func() error {
		if !p.Running() {
			return Ended(fmt.Errorf("%s has ended", p.Name))
		}
		return ok()
	})
	if err != nil {
		return fmt.Errorf("%s is not ready: %w; the end of its log:\n%s", p.Name, err, p.Tail(30))
	}
	return nil
}
