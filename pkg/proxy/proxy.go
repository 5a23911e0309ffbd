package proxy

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"

	"github.com/logd-io/logd/config"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/balance"
	"github.com/logd-io/logd/pkg/certwatch"
	"github.com/logd-io/logd/pkg/discovery"
	"github.com/logd-io/logd/pkg/internal/adminpage"
	"github.com/logd-io/logd/pkg/internal/events"
	"github.com/logd-io/logd/pkg/internal/reload"
	"github.com/logd-io/logd/pkg/internal/throttle"
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
	Tracing  *telemetry.Tracing // nil: nothing is traced. It is closed with what it is given to.
	// Load reads the configuration anew, for POST /api/reload; nil: that is not there.
	Load func() (config.Proxy, error)
}

// Proxy is a logproxy.
type Proxy struct {
	cfg     config.Proxy
	log     hclog.Logger
	version string
	tracing *telemetry.Tracing
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

	reloading sync.Mutex // held by Reload
	reloader  *reload.Reloader
	live      config.Proxy // cfg as given, with what Reload has taken since; its alone

	events   *events.Log
	observer *observer
	page     *adminpage.Page
	peers    peerCerts
	began    time.Time
	own      []*tlsconf.Source // upstream.tls, and listener.tls if there is one

	former atomic.Pointer[string] // see formerCluster

	draining atomic.Bool
	begun    atomic.Bool   // Run was called
	drain    chan struct{} // closed by Drain: Run is to drain
	abort    chan struct{} // closed by Close: Run is to end without a last chance
	over     chan struct{} // closed when Run returns

	drainOnce, closeOnce sync.Once
	closeErr             error // written once, by closeOnce
}

// Open loads certificates, binds all listeners, and writes their addresses to
// data_dir. Connections wait from then on and are served by Run.
func Open(cfg config.Proxy, deps Deps) (_ *Proxy, err error) {
	p := &Proxy{
		cfg: cfg, log: deps.Logger, version: deps.Version, tracing: deps.Tracing,
		holder: new(route.Holder), ends: newEndings(), health: health.NewServer(),
		events: events.New(), began: time.Now(),
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

	p.live = cfg
	if p.reloader, err = reload.New("logproxy", p.log, reg); err != nil {
		return nil, err
	}
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
	calls, err := telemetry.ClientCalls(reg, nodev1.Node_ServiceDesc)
	if err != nil {
		return nil, err
	}
	p.pool = upstream.New(upstream.Config{DialOptions: append(calls.DialOptions(), p.tracing.DialOptions()...), Credentials: func(name string) credentials.TransportCredentials {
		return credentials.NewTLS(p.peers.watch(name, up.Client(tlsconf.ALPNgRPC, tlsconf.RoleStorage, name)))
	}})
	policy, err := balance.ByName(cfg.Consume.Balance)
	if err != nil {
		return nil, fmt.Errorf("consume.balance: %w", err)
	}
	p.control, err = control.New(control.Config{
		Sources: sources, Pool: p.pool, Holder: p.holder, Policy: policy, MaxLag: uint64(max(cfg.Consume.MaxLag, 0)),
		Logger: p.log.Named("control"), Registerer: reg, Events: p.events,
	})
	if err != nil {
		return nil, err
	}
	if err := p.serveWith(down, up.Identity().Name, reg); err != nil {
		return nil, err
	}
	if p.page, err = p.newPage(); err != nil {
		return nil, err
	}
	var adminTLS *tlsconf.Source
	if cfg.Admin.TLS {
		adminTLS = up
	}
	var reload func() ([]string, error)
	if deps.Load != nil {
		reload = func() ([]string, error) { return p.Reload(deps.Load) }
	}
	p.admin, err = telemetry.OpenAdmin(telemetry.AdminOptions{
		Address: cfg.Admin.Address, TLS: adminTLS, Gatherer: reg, Ready: p.NotReady, Profiling: cfg.Admin.PProf,
		Status: func() any { return p.Status() }, Page: p.page, Drain: p.beginDrain, Reload: reload, Logger: p.log.Named("admin"),
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
	up, down, found := certificates(&p.cfg)
	if err := found.Err(); err != nil {
		return nil, nil, err
	}
	watch := func(path string, s *tlsconf.Source) error {
		w, err := certwatch.New(certwatch.Config{Source: s, Setting: path, Logger: p.log.Named("tls"), Registerer: reg, Events: p.events})
		if err != nil {
			return err
		}
		p.certs, p.own = append(p.certs, w), append(p.own, s)
		return nil
	}
	if err := watch("upstream.tls", up); err != nil {
		return nil, nil, err
	}
	if down != nil {
		if err := watch("listener.tls", down); err != nil {
			return nil, nil, err
		}
	}
	// Several proxies may share a certificate, and one that starts again is, to
	// gossip, another.
	var suffix [4]byte
	_, _ = rand.Read(suffix[:]) // never fails
	p.id = up.Identity().Name + "." + hex.EncodeToString(suffix[:])
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
		snapshot := "" // who was there, for a start while nobody of retry_join is
		if p.cfg.DataDir != "" {
			if err := os.MkdirAll(p.cfg.DataDir, 0o700); err != nil {
				return nil, fmt.Errorf("data_dir: %w", err)
			}
			snapshot = filepath.Join(p.cfg.DataDir, "gossip.snapshot")
		}
		p.gossip, err = membership.Open(membership.Config{
			ID: p.id, Role: membership.RoleProxy, BindAddr: p.cfg.Gossip.Address, AdvertiseAddr: advertise,
			Label: id.Cluster, Key: keys[0], OtherKeys: keys[1:], RetryJoin: p.cfg.Gossip.RetryJoin,
			Tags: membership.Tags{Version: p.version}, SnapshotPath: snapshot,
			Logger: p.log.Named("gossip"), Registerer: reg,
		})
		if err != nil {
			return nil, fmt.Errorf("gossip.address: %w", err)
		}
	}
	return p.sources(reg)
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
	rated, err := throttle.New(throttle.Config{
		Rates: rates(p.cfg.Limits), Namespace: "logproxy", Logger: p.log, Registerer: reg,
	})
	if err != nil {
		return err
	}
	p.forward, err = forward.New(forward.Config{
		Holder: p.holder, Hints: p.control, Principal: who, Sessions: scope,
		GetServers: p.cfg.GetServers, Self: p.id, Addr: func() string { return listening(p.lis) },
		HoldTimeout: p.cfg.Produce.HoldTimeout,
		HoldRecords: p.cfg.Produce.MaxHeld, HoldBytes: int64(p.cfg.Produce.MaxHeldBytes),
		MaxSessions: p.cfg.Session.MaxSessions, Rates: rated,
		Logger: p.log.Named("forward"), Registerer: reg, Events: p.events, Tracer: p.tracing.Tracer(),
	})
	if err != nil {
		return err
	}
	m, err := newMetrics(reg, telemetry.NewAccessLog(p.log.Named("access")), who, p.holder)
	if err != nil {
		return err
	}
	p.observer = &observer{events: p.events, forward: p.forward, holder: p.holder, newest: p.newest, metrics: m, throttle: rated}
	pass := &passthrough{holder: p.holder, principal: who, hold: p.cfg.Produce.HoldTimeout}
	if p.bounds, err = newBounds(&p.cfg, who, rated, m, reg); err != nil {
		return err
	}
	p.server = newServer(p.tracing, p.cfg.Limits, p.forward, p.health, pass, p.ends, m, p.bounds, down)
	return nil
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
