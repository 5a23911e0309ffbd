package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/logd-io/logd/config"
	"github.com/logd-io/logd/pkg/authz"
	"github.com/logd-io/logd/pkg/autopilot"
	"github.com/logd-io/logd/pkg/bootstrap"
	"github.com/logd-io/logd/pkg/certwatch"
	"github.com/logd-io/logd/pkg/internal/adminpage"
	"github.com/logd-io/logd/pkg/internal/events"
	"github.com/logd-io/logd/pkg/internal/reload"
	"github.com/logd-io/logd/pkg/membership"
	"github.com/logd-io/logd/pkg/registrar"
	"github.com/logd-io/logd/pkg/replica"
	"github.com/logd-io/logd/pkg/server"
	"github.com/logd-io/logd/pkg/telemetry"
	"github.com/logd-io/logd/pkg/tlsconf"
	"github.com/logd-io/logd/pkg/vfs"
)

// Deps are what an agent takes from its surroundings. The zero value is what a
// process of its own needs.
type Deps struct {
	Logger   hclog.Logger         // nil: quiet
	Registry *prometheus.Registry // nil: one of its own
	Version  string
	Tracing  *telemetry.Tracing // nil: nothing is traced. It is closed with what it is given to.
	FS       vfs.FS             // nil: the operating system's
	// Listen and Dial are the network of RPC and Raft; nil: the operating
	// system's. Gossip and the admin server do not go through them.
	Listen func(network, address string) (net.Listener, error)
	Dial   func(ctx context.Context, network, address string) (net.Conn, error)
	Clock  func() time.Time // stamps records; nil: the system's
	// Load reads the configuration anew, for POST /api/reload; nil: that is not there.
	Load func() (config.Node, error)
}

// Agent is one storage node.
type Agent struct {
	cfg     config.Node
	deps    Deps
	logger  hclog.Logger
	id      string
	process string // random; tells this process from others with the id
	tls     *tlsconf.Source
	certs   *certwatch.Watcher // of tls
	authz   *authz.Authorizer

	replica  *replica.Replica
	boot     *bootstrap.Bootstrap
	promises *bootstrap.Store
	gossip   *membership.Gossip
	book     *addressBook
	server   *server.Server
	listener net.Listener
	admin    *telemetry.Admin
	page     *adminpage.Page
	events   *events.Log
	began    time.Time
	pilot    *autopilot.Pilot
	enrolled *registrar.Registrar // nil without a register block
	calls    *telemetry.Calls     // to other nodes
	leader   leaderLine
	addrs    Addrs

	reloading sync.Mutex // held by Reload
	reloader  *reload.Reloader
	live      config.Node // cfg, with what Reload has taken since; its alone

	waitsFor atomic.Pointer[string] // what a node in no cluster waits for
	said     chan struct{}          // one token: waitsFor has changed; for Follow alone
	refused  atomic.Pointer[string] // why the cluster does not know this node any more; nil: it does

	open stack // what Open acquired, released in reverse by Close

	mu     sync.Mutex
	cancel context.CancelFunc // ends a Run that is on its way; guarded by mu
	ended  chan struct{}      // closed when Run has returned; guarded by mu, nil before Run
	closed bool               // guarded by mu
}

// Open acquires everything a node needs: its data directory, ports, stores and
// certificates. It serves nothing before Run. What it cannot get it names.
func Open(cfg config.Node, deps Deps) (_ *Agent, err error) {
	fill(&deps)
	a := &Agent{
		cfg: cfg, deps: deps, logger: deps.Logger, process: rand.Text(),
		said: make(chan struct{}, 1), events: events.New(), began: time.Now(),
	}
	a.open.push(deps.Tracing) // released last: what ends is traced, too
	defer func() {
		if err != nil {
			err = errors.Join(err, a.open.Close())
		}
	}()
	for _, step := range []func() error{
		a.openDir, a.openIdentity, a.openACL, a.openListener, a.openReplica, a.openPromises,
		a.openGossip, a.openBootstrap, a.openServer, a.openRegister, a.openAutopilot, a.openAdmin, a.openReload, a.writeAddrs,
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func fill(d *Deps) {
	if d.Logger == nil {
		d.Logger = hclog.NewNullLogger()
	}
	if d.Registry == nil {
		d.Registry = prometheus.NewRegistry()
	}
	if d.FS == nil {
		d.FS = vfs.OS{}
	}
	if d.Listen == nil {
		d.Listen = net.Listen
	}
	if d.Dial == nil {
		d.Dial = new(net.Dialer).DialContext
	}
}

// openDir makes the data directory ours: two processes in one would be two
// nodes with one id.
func (a *Agent) openDir() error {
	if err := a.deps.FS.MkdirAll(a.cfg.DataDir); err != nil {
		return fmt.Errorf("data_dir %s: %w", a.cfg.DataDir, err)
	}
	lock, err := a.deps.FS.Lock(filepath.Join(a.cfg.DataDir, "lock"))
	switch {
	case errors.Is(err, vfs.ErrLocked):
		return fmt.Errorf("data_dir %s is in use by another logd process: stop it, or give this node a directory of its own", a.cfg.DataDir)
	case err != nil:
		return fmt.Errorf("data_dir %s: %w", a.cfg.DataDir, err)
	}
	a.open.push(lock)
	if _, ok := a.deps.FS.(vfs.OS); !ok {
		return nil
	}
	// Not refused: some volumes are mounted like that, and cannot be changed.
	if st, err := os.Stat(a.cfg.DataDir); err == nil && st.Mode().Perm()&0o077 != 0 {
		a.logger.Warn("data_dir is open to others than its owner; chmod 0700 it", "data_dir", a.cfg.DataDir, "mode", st.Mode().Perm())
	}
	return nil
}

// openIdentity reads who this node is from its certificate. Configured names are
// checked against it, since other nodes believe the certificate alone.
func (a *Agent) openIdentity() (err error) {
	src, found := certificate(&a.cfg)
	if err := found.Err(); err != nil {
		return err
	}
	a.tls = src
	a.certs, err = certwatch.New(certwatch.Config{
		Source: src, Setting: "tls", Logger: a.logger.Named("tls"), Registerer: a.deps.Registry, Events: a.events,
	})
	if err != nil {
		return err
	}
	a.id, err = replica.LoadNodeID(a.deps.FS, a.cfg.DataDir, src.Identity().Name)
	if err != nil {
		return fmt.Errorf("data_dir %s: %w", a.cfg.DataDir, err)
	}
	return nil
}

func (a *Agent) openACL() (err error) {
	a.authz, err = authz.Open(authz.Options{
		Files:      authz.Files{Model: a.cfg.ACL.Model, Policy: a.cfg.ACL.Policy},
		Logger:     a.logger.Named("acl"),
		Registerer: a.deps.Registry,
	})
	if err != nil {
		return fmt.Errorf("acl: %w", err)
	}
	return nil
}

func (a *Agent) openReplica() (err error) {
	dir := filepath.Join(a.cfg.DataDir, "raft")
	if err := a.checkKept(dir); err != nil {
		return err
	}
	a.book, err = openAddressBook(a.deps.FS, filepath.Join(a.cfg.DataDir, "peers.json"), a.logger)
	if err != nil {
		return err
	}
	a.replica, err = replica.Open(replica.Config{
		ID: a.id, FS: a.deps.FS, Dir: dir,
		Heartbeat:        a.cfg.Raft.HeartbeatTimeout,
		MaxInFlightBytes: int64(a.cfg.Log.MaxInFlight),
		SegmentBytes:     int64(a.cfg.Log.SegmentSize),
		CacheBytes:       int64(a.cfg.Log.CacheSize),
		Reserve:          int64(a.cfg.Log.Reserve),
		Announce:         announce(a.cfg.Raft.AnnounceInterval),
		Compare:          a.compare,
		Retain:           retain(a.cfg.Retain),
		Clock:            a.deps.Clock,
		Dial:             a.dialRaft,
		Source:           source{a},
		ScrubRate:        int64(a.cfg.Log.ScrubRate),
		Logger:           a.logger.Named("replica"),
		Registerer:       a.deps.Registry,
	})
	if err != nil {
		return fmt.Errorf("open the log in %s: %w", dir, err)
	}
	a.open.push(a.replica)
	return nil
}

// checkKept refuses a node that was open before and lost its log: under its id it
// would still count as one of those that have what was acknowledged.
func (a *Agent) checkKept(dir string) error {
	_, err := a.deps.FS.Stat(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	switch _, err := a.deps.FS.Stat(filepath.Join(a.cfg.DataDir, addrsFile)); {
	case err == nil:
		return fmt.Errorf("data_dir %s belongs to node %s, but its log in %s is gone: bring it back, or remove all of data_dir to make this a new node",
			a.cfg.DataDir, a.id, dir)
	case errors.Is(err, fs.ErrNotExist):
		return nil // it was never open
	default:
		return err
	}
}

func (a *Agent) openServer() (err error) {
	if err := a.openMetrics(); err != nil {
		return err
	}
	a.open.push(&a.leader) // the server asks over it
	a.server, err = server.New(server.Config{
		NodeID:               a.id,
		Version:              a.deps.Version,
		Process:              a.process,
		Replica:              submitter{a.replica},
		Log:                  a.replica.Log(),
		Promises:             a.boot,
		Keyring:              keyring{a.gossip},
		TLS:                  a.tls,
		Authz:                a.authz,
		Addresses:            a.address,
		ReadIndex:            a.readIndex,
		Autopilot:            a.autopilotState,
		Answers:              a.answers,
		RaftConn:             a.replica.Accept,
		MaxRecordBytes:       int(a.cfg.Log.MaxRecordSize),
		MaxConcurrentStreams: uint32(a.cfg.Limits.MaxConcurrentStreams),
		HandshakeTimeout:     a.cfg.Limits.HandshakeTimeout,
		ConnectionAge:        a.cfg.Limits.ConnectionAge,
		SendTimeout:          a.cfg.Limits.SendTimeout,
		Rates:                rates(a.cfg.Limits),
		Clock:                a.deps.Clock,
		Tracing:              a.deps.Tracing,
		Logger:               a.logger.Named("server"),
		Registerer:           a.deps.Registry,
	})
	if err != nil {
		return err
	}
	a.open.push(a.server)
	return nil
}

func (a *Agent) openAdmin() (err error) {
	addr, err := a.reuse(a.cfg.AdminAddr(), func(old Addrs) string { return old.Admin })
	if err != nil {
		return err
	}
	if a.page, err = a.newPage(); err != nil {
		return err
	}
	var adminTLS *tlsconf.Source
	if a.cfg.Admin.TLS {
		adminTLS = a.tls
	}
	var reload func() ([]string, error)
	if load := a.deps.Load; load != nil {
		reload = func() ([]string, error) { return a.Reload(load) }
	}
	a.admin, err = telemetry.OpenAdmin(telemetry.AdminOptions{
		Address:  addr,
		Gatherer: a.deps.Registry,
		Ready:    a.NotReady,
		Status:   func() any { return a.status() },
		Page:     a.page,
		Reload:   reload,

		Profiling: a.cfg.Admin.PProf,
		TLS:       adminTLS,
		Logger:    a.logger.Named("admin"),
	})
	if err != nil {
		return err
	}
	a.open.push(a.admin)
	a.addrs.Admin = a.admin.Addr().String()
	return nil
}

// ID is the node's id.
func (a *Agent) ID() string { return a.id }

// Close cuts everything off, as a crash of the process would, and releases what
// Open acquired. It waits for a Run that is on its way. Calling it again is
// harmless. For an orderly end, end Run's context.
func (a *Agent) Close() error {
	a.mu.Lock()
	cancel, ended, closed := a.cancel, a.ended, a.closed
	a.closed = true
	a.mu.Unlock()
	if cancel != nil {
		cancel()
	}
	if ended != nil {
		<-ended
	}
	if closed {
		return nil
	}
	return a.open.Close()
}

// stack releases what was acquired, last first.
type stack []io.Closer

func (s *stack) push(c io.Closer) { *s = append(*s, c) }

func (s *stack) Close() (err error) {
	for i := len(*s) - 1; i >= 0; i-- {
		err = errors.Join(err, (*s)[i].Close())
	}
	*s = nil
	return err
}
