package proxy

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"

	"github.com/logd-io/logd/config"
	"github.com/logd-io/logd/pkg/balance"
	"github.com/logd-io/logd/pkg/certwatch"
	"github.com/logd-io/logd/pkg/discovery"
	"github.com/logd-io/logd/pkg/discovery/serf"
	"github.com/logd-io/logd/pkg/discovery/static"
	"github.com/logd-io/logd/pkg/membership"
	"github.com/logd-io/logd/pkg/proxy/control"
	"github.com/logd-io/logd/pkg/proxy/forward"
	"github.com/logd-io/logd/pkg/proxy/route"
	"github.com/logd-io/logd/pkg/proxy/upstream"
	"github.com/logd-io/logd/pkg/telemetry"
	"github.com/logd-io/logd/pkg/tlsconf"
)

// Deps are what a Proxy shares with the process around it.
type Deps struct {
	Logger   hclog.Logger         // nil: quiet
	Registry *prometheus.Registry // nil: one of its own
	Version  string
}

// Proxy is a logproxy.
type Proxy struct {
	cfg     config.Proxy
	log     hclog.Logger
	version string
	id      string // in gossip, GetServers and status
	addrs   Addrs

	holder  *route.Holder
	gossip  *membership.Gossip // nil without discovery "serf"
	pool    *upstream.Pool
	control *control.Control
	forward *forward.Forwarder
	health  *health.Server
	ends    *endings
	server  *grpc.Server
	bounds  *bounds
	lis     net.Listener
	admin   *telemetry.Admin
	certs   []*certwatch.Watcher

	draining atomic.Bool
	begun    atomic.Bool   // Run was called
	drain    chan struct{} // closed by Drain: Run is to drain
	abort    chan struct{} // closed by Close: Run is to end without a last chance
	over     chan struct{} // closed when Run returns

	drainOnce, closeOnce sync.Once
	closeErr             error // written once, by closeOnce
}

// RoleError reports a certificate that is not a proxy's.
type RoleError struct{ Got tlsconf.Identity }

func (e *RoleError) Error() string {
	return fmt.Sprintf("upstream.tls: the certificate is for role %s (%s), and nodes take a proxy's word only with role %s", e.Got.Role, e.Got.Name, tlsconf.RoleProxy)
}

// Open loads certificates, binds all listeners, and writes their addresses to
// data_dir. Connections wait from then on and are served by Run.
func Open(cfg config.Proxy, deps Deps) (_ *Proxy, err error) {
	p := &Proxy{
		cfg: cfg, log: deps.Logger, version: deps.Version,
		holder: new(route.Holder), ends: newEndings(), health: health.NewServer(),
		drain: make(chan struct{}), abort: make(chan struct{}), over: make(chan struct{}),
	}
	if p.log == nil {
		p.log = hclog.NewNullLogger()
	}
	reg := deps.Registry
	if reg == nil {
		reg = prometheus.NewRegistry()
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()

	up, down, err := p.certificates(reg)
	if err != nil {
		return nil, err
	}
	before := readAddrs(cfg.DataDir)
	cfg.Listener.Address = reuse(cfg.Listener.Address, before.Listener)
	cfg.Gossip.Address = reuse(cfg.Gossip.Address, before.Gossip)
	cfg.Admin.Address = reuse(cfg.Admin.Address, before.Admin)
	p.cfg = cfg
	if p.lis, err = listen(cfg.Listener); err != nil {
		return nil, err
	}
	sources, err := p.discover(up.Identity(), reg)
	if err != nil {
		return nil, err
	}
	p.pool = upstream.New(upstream.Config{Credentials: func(name string) credentials.TransportCredentials {
		return credentials.NewTLS(up.Client(tlsconf.ALPNgRPC, tlsconf.RoleStorage, name))
	}})
	policy, err := balance.ByName(cfg.Consume.Balance)
	if err != nil {
		return nil, fmt.Errorf("consume.balance: %w", err)
	}
	p.control, err = control.New(control.Config{
		Sources: sources, Pool: p.pool, Holder: p.holder, Policy: policy, MaxLag: uint64(max(cfg.Consume.MaxLag, 0)),
		Logger: p.log.Named("control"), Registerer: reg,
	})
	if err != nil {
		return nil, err
	}
	if err := p.serveWith(down, up.Identity().Name, reg); err != nil {
		return nil, err
	}
	p.admin, err = telemetry.OpenAdmin(telemetry.AdminOptions{
		Address: cfg.Admin.Address, Gatherer: reg, Ready: p.notReady,
		Status: func() any { return p.Status() }, Logger: p.log.Named("admin"),
	})
	if err != nil {
		return nil, fmt.Errorf("admin.address: %w", err)
	}
	p.addrs.Listener = address(p.lis, &cfg)
	p.addrs.Admin = p.admin.Addr().String()
	if p.gossip != nil {
		p.addrs.Gossip = p.gossip.Addr()
	}
	if err := p.addrs.write(cfg.DataDir); err != nil {
		return nil, err
	}
	return p, nil
}

// certificates loads what the proxy shows to nodes, and to clients (nil:
// plaintext), and settles its name.
func (p *Proxy) certificates(reg prometheus.Registerer) (up, down *tlsconf.Source, err error) {
	load := func(path string, t config.TLS) (*tlsconf.Source, error) {
		s, err := tlsconf.Load(tlsconf.Files{CA: t.CAFile, Cert: t.CertFile, Key: t.KeyFile})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		w, err := certwatch.New(certwatch.Config{Source: s, Setting: path, Logger: p.log.Named("tls"), Registerer: reg})
		if err != nil {
			return nil, err
		}
		p.certs = append(p.certs, w)
		return s, nil
	}
	if up, err = load("upstream.tls", p.cfg.Upstream.TLS); err != nil {
		return nil, nil, err
	}
	id := up.Identity()
	switch {
	case id.Role != tlsconf.RoleProxy:
		return nil, nil, &RoleError{Got: id}
	case p.cfg.Name != "" && p.cfg.Name != id.Name:
		return nil, nil, fmt.Errorf("name: %q, but the certificate in upstream.tls names %q", p.cfg.Name, id.Name)
	case p.cfg.Cluster != "" && p.cfg.Cluster != id.Cluster:
		return nil, nil, fmt.Errorf("cluster: %q, but the certificate in upstream.tls is of cluster %q", p.cfg.Cluster, id.Cluster)
	}
	// Several proxies may share a certificate, and one that starts again is, to
	// gossip, another.
	var suffix [4]byte
	_, _ = rand.Read(suffix[:]) // never fails
	p.id = id.Name + "." + hex.EncodeToString(suffix[:])
	if !p.cfg.Listener.TLS.IsZero() {
		if down, err = load("listener.tls", p.cfg.Listener.TLS); err != nil {
			return nil, nil, err
		}
	}
	return up, down, nil
}

// discover opens gossip if a source needs it, and makes the sources.
func (p *Proxy) discover(id tlsconf.Identity, reg prometheus.Registerer) ([]discovery.Source, error) {
	if p.cfg.UsesGossip() {
		keys, err := p.cfg.GossipKeys()
		if err != nil {
			return nil, err
		}
		advertise := p.cfg.Gossip.AdvertiseAddress
		if _, _, err := net.SplitHostPort(advertise); err != nil {
			host, err := p.cfg.AdvertiseHost()
			if err != nil {
				return nil, err
			}
			advertise = net.JoinHostPort(host, "0") // the port that is bound
		}
		p.gossip, err = membership.Open(membership.Config{
			ID: p.id, Role: membership.RoleProxy, BindAddr: p.cfg.Gossip.Address, AdvertiseAddr: advertise,
			Label: id.Cluster, Key: keys[0], OtherKeys: keys[1:], RetryJoin: p.cfg.Gossip.RetryJoin,
			Tags:   membership.Tags{Version: p.version},
			Logger: p.log.Named("gossip"), Registerer: reg,
		})
		if err != nil {
			return nil, fmt.Errorf("gossip.address: %w", err)
		}
	}
	var sources []discovery.Source
	for _, d := range p.cfg.Sources() {
		switch d.Kind {
		case "serf":
			sources = append(sources, serf.New(p.gossip))
		case "static":
			s, err := static.New(d.Nodes)
			if err != nil {
				return nil, fmt.Errorf("discovery.static: %w", err)
			}
			sources = append(sources, s)
		default:
			return nil, fmt.Errorf("discovery %q: unknown", d.Kind)
		}
	}
	return sources, nil
}

// serveWith makes the data path and the server in front of it.
func (p *Proxy) serveWith(down *tlsconf.Source, name string, reg prometheus.Registerer) (err error) {
	sidecar, scope := name, forward.SessionProxy
	if p.cfg.Principal != "" {
		sidecar = p.cfg.Principal
	}
	if down != nil {
		scope = forward.SessionConnection
	}
	who := caller(down, sidecar)
	p.forward, err = forward.New(forward.Config{
		Holder: p.holder, Hints: p.control, Principal: who, Sessions: scope,
		GetServers: p.cfg.GetServers, Self: p.id, Addr: func() string { return listening(p.lis) },
		HoldTimeout: p.cfg.Produce.HoldTimeout,
		HoldRecords: p.cfg.Produce.MaxHeld, HoldBytes: int64(p.cfg.Produce.MaxHeldBytes),
		MaxSessions: p.cfg.Session.MaxSessions,
		Logger:      p.log.Named("forward"), Registerer: reg,
	})
	if err != nil {
		return err
	}
	m, err := newMetrics(reg)
	if err != nil {
		return err
	}
	pass := &passthrough{holder: p.holder, principal: who, hold: p.cfg.Produce.HoldTimeout}
	if p.bounds, err = newBounds(&p.cfg, who, m, reg); err != nil {
		return err
	}
	p.server = newServer(p.cfg.Limits, p.forward, p.health, pass, p.ends, m, p.bounds, down)
	return nil
}

// Reload has the certificates read again, and returns before they are.
func (p *Proxy) Reload() {
	for _, w := range p.certs {
		w.Reload()
	}
}

// ID names the proxy in gossip and to clients: its certificate's name and a
// suffix of its own.
func (p *Proxy) ID() string { return p.id }

// Addr is where clients connect: host:port, or unix:// and a path.
func (p *Proxy) Addr() string { return p.addrs.Listener }

// GossipAddr is host:port as bound; empty without gossip.
func (p *Proxy) GossipAddr() string { return p.addrs.Gossip }

// AdminAddr is host:port as bound.
func (p *Proxy) AdminAddr() string { return p.addrs.Admin }
