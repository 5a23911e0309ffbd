package devcluster

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/logd-io/logd/config"
	"github.com/logd-io/logd/pkg/agent"
	"github.com/logd-io/logd/pkg/proxy"
	"github.com/logd-io/logd/pkg/tlsconf"
)

// clusterName is the gossip label and the trust domain of the certificates.
const clusterName = "dev"

// Cluster is nodes and a proxy in this process. Safe for concurrent use.
type Cluster struct {
	opt     Options
	certs   certs
	key     string // of gossip
	nodes   []*Node
	proxy   *proxy.Proxy
	removed bool     // Close removes opt.Dir
	lags    sync.Map // address of a node → time.Duration

	wg        sync.WaitGroup // the Runs
	failed    chan error     // capacity 1: the first Run that failed
	endProxy  context.CancelFunc
	closeOnce sync.Once
	closeErr  error // of the first Close
}

// Node is one storage node of a Cluster.
type Node struct {
	Name string // "node1" and so on

	cluster *Cluster
	link    *link
	config  config.Node

	mu    sync.Mutex
	agent *agent.Agent       // guarded by mu; nil while killed
	end   context.CancelFunc // ends the agent's Run gently; guarded by mu
	ended chan struct{}      // closed when that Run has returned; guarded by mu
}

// Start brings a cluster up. It returns when everything is open and running,
// which is before there is a leader: Ready waits for one.
func Start(opt Options) (_ *Cluster, err error) {
	if err := opt.fill(); err != nil {
		return nil, fmt.Errorf("devcluster: %w", err)
	}
	c := &Cluster{opt: opt, failed: make(chan error, 1)}
	if opt.Dir == "" {
		if c.opt.Dir, err = os.MkdirTemp("", "logd-dev-"); err != nil {
			return nil, err
		}
		c.removed = true
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if err := c.prepare(); err != nil {
		return nil, err
	}
	for i := range c.opt.Nodes {
		n := c.node(i + 1)
		c.nodes = append(c.nodes, n)
		if err := n.Revive(); err != nil {
			return nil, err
		}
	}
	return c, c.startProxy()
}

// prepare makes the certificates, the policy and the gossip key, unless Dir has them.
func (c *Cluster) prepare() (err error) {
	if err := os.MkdirAll(c.opt.Dir, 0o700); err != nil {
		return err
	}
	if c.certs, err = makeCerts(filepath.Join(c.opt.Dir, "tls"), c.opt.Nodes); err != nil {
		return err
	}
	if err := makePolicy(c.policyFile()); err != nil {
		return err
	}
	file := filepath.Join(c.opt.Dir, "gossip.key")
	b, err := os.ReadFile(file)
	switch {
	case err == nil:
		c.key = string(b)
		return nil
	case !errors.Is(err, os.ErrNotExist):
		return err
	}
	var raw [32]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return err
	}
	c.key = base64.StdEncoding.EncodeToString(raw[:])
	return os.WriteFile(file, []byte(c.key), 0o600)
}

func (c *Cluster) policyFile() string { return filepath.Join(c.opt.Dir, "policy.csv") }

func (c *Cluster) node(i int) *Node {
	name := nodeName(i)
	conf := config.DefaultNode()
	conf.Name, conf.Cluster = name, clusterName
	conf.DataDir = filepath.Join(c.opt.Dir, name)
	conf.BindAddr, conf.Ports = c.opt.place(i)
	conf.BootstrapExpect = c.opt.Nodes
	conf.GossipKey = c.key
	conf.TLS = c.certs.config(name)
	conf.ACL.Policy = c.policyFile()
	if c.opt.Heartbeat > 0 {
		conf.Raft.HeartbeatTimeout = c.opt.Heartbeat
	}
	if c.opt.Configure != nil {
		c.opt.Configure(&conf)
	}
	return &Node{Name: name, cluster: c, link: newLink(&c.lags), config: conf}
}

// gossip is where the other nodes that run gossip.
func (c *Cluster) gossip(but *Node) (addrs []string) {
	for _, n := range c.nodes {
		if n == but {
			continue
		}
		if a := n.running(); a != nil {
			addrs = append(addrs, a.GossipAddr())
		}
	}
	return addrs
}

func (c *Cluster) startProxy() (err error) {
	conf := config.DefaultProxy()
	conf.Name, conf.Cluster = proxyName, clusterName
	conf.DataDir = filepath.Join(c.opt.Dir, proxyName)
	conf.Listener.Address, conf.Gossip.Address, conf.Admin.Address = c.opt.proxyPlace()
	conf.Gossip.Key = c.key
	conf.Gossip.RetryJoin = c.gossip(nil)
	conf.Upstream.TLS = c.certs.config(proxyName)
	c.proxy, err = proxy.Open(conf, proxy.Deps{
		Logger:   c.opt.Logger.Named(proxyName),
		Registry: c.opt.registry(proxyName),
		Tracing:  c.opt.tracing(proxyName),
		Version:  c.opt.Version,
	})
	if err != nil {
		return fmt.Errorf("devcluster: %s: %w", proxyName, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.endProxy = cancel
	c.wg.Go(func() { c.note(proxyName, c.proxy.Run(ctx)) })
	return nil
}

// note keeps the first failure of a Run.
func (c *Cluster) note(name string, err error) {
	if err == nil {
		return
	}
	select {
	case c.failed <- fmt.Errorf("%s: %w", name, err):
	default:
	}
}

// Failed gives the error of the first node or proxy that ended by itself.
func (c *Cluster) Failed() <-chan error { return c.failed }

// Nodes of the cluster, in the order of their names.
func (c *Cluster) Nodes() []*Node { return c.nodes }

// Node of that name, nil if there is none.
func (c *Cluster) Node(name string) *Node {
	for _, n := range c.nodes {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// Leader is the node that leads, as the newest term among the running nodes has
// it; nil while there is none, or it cannot be reached by anybody.
func (c *Cluster) Leader() *Node {
	var leader *Node
	var term uint64
	for _, n := range c.nodes {
		a := n.running()
		if a == nil || n.link.isDown() {
			continue
		}
		if v := a.View(); v.IsLeader && v.Term >= term {
			leader, term = n, v.Term
		}
	}
	return leader
}

// Proxy is the address naive clients use, host:port.
func (c *Cluster) Proxy() string { return c.proxy.Addr() }

// ProxyAdmin is host:port of the proxy's admin server.
func (c *Cluster) ProxyAdmin() string { return c.proxy.AdminAddr() }

// Files are a certificate of a role other than storage and proxy, for direct
// connections to nodes.
func (c *Cluster) Files(role tlsconf.Role) tlsconf.Files { return c.certs.files(string(role)) }

// Close ends everything gently, the proxy first, and removes what Start made of
// its own. Calling it again is harmless.
func (c *Cluster) Close() error {
	c.closeOnce.Do(func() { c.closeErr = c.close() })
	return c.closeErr
}

func (c *Cluster) close() error {
	var errs []error
	if c.endProxy != nil {
		c.endProxy()
	}
	// All nodes at once: one after the other they would elect leaders in vain.
	var wg sync.WaitGroup
	for _, n := range c.nodes {
		wg.Go(n.Stop)
	}
	wg.Wait()
	c.wg.Wait()
	if c.proxy != nil {
		errs = append(errs, c.proxy.Close())
	}
	if c.removed {
		errs = append(errs, os.RemoveAll(c.opt.Dir))
	}
	return errors.Join(errs...)
}
