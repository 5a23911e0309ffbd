package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/authz"
	"github.com/logd-io/logd/pkg/internal/netlimit"
	"github.com/logd-io/logd/pkg/internal/rounds"
	"github.com/logd-io/logd/pkg/internal/throttle"
	"github.com/logd-io/logd/pkg/replica"
	"github.com/logd-io/logd/pkg/telemetry"
	"github.com/logd-io/logd/pkg/tlsconf"
)

// Server answers on a node's RPC port. Serve runs it; Drain and Close end it.
type Server struct {
	logv1.UnimplementedLogServer
	nodev1.UnimplementedNodeServer

	cfg     Config
	logger  hclog.Logger
	replica Replica
	log     Log
	door    *door
	authz   *authz.Authorizer
	audit   *audit
	rates   *throttle.Throttle
	access  *telemetry.AccessLog
	tracer  trace.Tracer // nil: nothing is traced
	grpc    *grpc.Server
	health  *health.Server

	draining chan struct{} // closed by SetDraining: views and health say so
	stopping chan struct{} // closed by Drain: nothing new is taken, streams end

	drainOnce, stopOnce sync.Once

	// helpers are goroutines of streams that may outlive their handler by the
	// moment it takes a blocked gRPC call to notice. Close waits for them.
	helpers sync.WaitGroup

	joins sync.Mutex // held over a Join: look at the configuration, then change it

	extracts chan struct{}         // capacity maxExtracts: a token for each peer being served entries
	strayed  atomic.Int64          // when it was last logged that a call was for another cluster, in ns; 0: never
	asks     *rounds.Group[uint64] // questions to the leader, see linearize
}

// New makes a server that serves nothing yet.
func New(cfg Config) (*Server, error) {
	cfg.fill()
	switch {
	case cfg.Replica == nil || cfg.Log == nil || cfg.Promises == nil || cfg.TLS == nil || cfg.RaftConn == nil:
		return nil, errors.New("server: Replica, Log, Promises, TLS and RaftConn are needed")
	case cfg.MaxRecordBytes < 0 || cfg.MaxRecordBytes > MaxRecordBytes:
		return nil, fmt.Errorf("server: records of %d bytes, at most %d", cfg.MaxRecordBytes, MaxRecordBytes)
	}
	s := &Server{
		cfg: cfg, logger: cfg.Logger, replica: cfg.Replica, log: cfg.Log,
		authz: cfg.Authz, audit: newAudit(cfg.Logger.Named("audit"), cfg.Registerer),
		access:   telemetry.NewAccessLog(cfg.Logger.Named("access")),
		tracer:   cfg.Tracing.Tracer(),
		health:   health.NewServer(),
		draining: make(chan struct{}), stopping: make(chan struct{}),
		extracts: make(chan struct{}, maxExtracts),
	}
	s.asks = rounds.New(s.askLeader)
	var err error
	s.rates, err = throttle.New(throttle.Config{
		Rates: cfg.Rates, Namespace: "logd", Logger: cfg.Logger, Registerer: cfg.Registerer,
	})
	if err != nil {
		return nil, err
	}
	conns, err := newConnections(cfg.Connections, cfg.Registerer)
	if err != nil {
		return nil, err
	}
	s.door = &door{
		tls: cfg.TLS.Server([]string{tlsconf.ALPNgRPC, tlsconf.ALPNRaft},
			tlsconf.RoleStorage, tlsconf.RoleProxy, tlsconf.RoleClient, tlsconf.RoleAdmin),
		timeout: cfg.HandshakeTimeout,
		conns:   conns,
		raft:    cfg.RaftConn,
		shaking: make(map[net.Conn]struct{}),
		refused: func(remote net.Addr, err error) {
			s.logger.Debug("connection refused", "remote", remote, "err", tlsconf.Explain(err))
		},
	}
	unary := []grpc.UnaryServerInterceptor{s.unary}
	stream := []grpc.StreamServerInterceptor{s.stream}
	if cfg.Registerer != nil {
		calls, err := telemetry.ServerCalls(cfg.Registerer, logv1.Log_ServiceDesc, nodev1.Node_ServiceDesc, healthv1.Health_ServiceDesc,
			reflectionv1.ServerReflection_ServiceDesc, reflectionv1alpha.ServerReflection_ServiceDesc)
		if err != nil {
			return nil, err
		}
		unary = append([]grpc.UnaryServerInterceptor{calls.UnaryServer}, unary...)
		stream = append([]grpc.StreamServerInterceptor{calls.StreamServer}, stream...)
	}
	s.grpc = grpc.NewServer(append(cfg.Tracing.ServerOptions(),
		grpc.Creds(s.door),
		grpc.ForceServerCodecV2(codec{}),
		grpc.ConnectionTimeout(cfg.HandshakeTimeout),
		grpc.MaxConcurrentStreams(cfg.MaxConcurrentStreams),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.MaxRecvMsgSize(maxMessageBytes),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			// gRPC adds ± 10 % of its own to the age.
			MaxConnectionAge: cfg.ConnectionAge, MaxConnectionAgeGrace: ageGrace,
			Time: 20 * time.Second, Timeout: 10 * time.Second,
		}),
		grpc.WaitForHandlers(true),
		grpc.ChainUnaryInterceptor(unary...),
		grpc.ChainStreamInterceptor(stream...),
	)...)
	s.grpc.RegisterService(logService(), s)
	s.grpc.RegisterService(nodeService(), s)
	healthv1.RegisterHealthServer(s.grpc, s.health)
	reflection.Register(s.grpc)
	s.setHealth(healthv1.HealthCheckResponse_NOT_SERVING)
	return s, nil
}

// Serve answers on lis until Drain or Close, and then returns nil. It closes lis.
func (s *Server) Serve(lis net.Listener) error {
	done := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() { s.followReadiness(done) })
	err := s.grpc.Serve(holdListener{netlimit.Listener{Listener: lis, Newest: s.door.conns.fresh}})
	close(done)
	watch.Wait()
	if errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return err
}

// followReadiness keeps health in step with the replica.
func (s *Server) followReadiness(done <-chan struct{}) {
	for {
		changed := s.replica.Changes()
		state := healthv1.HealthCheckResponse_NOT_SERVING
		if v := s.view(); v.Ready && !v.Draining {
			state = healthv1.HealthCheckResponse_SERVING
		}
		s.setHealth(state)
		select {
		case <-changed:
		case <-s.draining:
			s.health.Shutdown() // NOT_SERVING for good
			return
		case <-done:
			return
		}
	}
}

func (s *Server) setHealth(state healthv1.HealthCheckResponse_ServingStatus) {
	for _, name := range []string{"", logv1.Log_ServiceDesc.ServiceName, nodev1.Node_ServiceDesc.ServiceName} {
		s.health.SetServingStatus(name, state)
	}
}

// view is the replica's, which this server makes draining.
func (s *Server) view() replica.View {
	v := s.replica.View()
	select {
	case <-s.draining:
		v.Draining = true
	default:
	}
	return v
}

// SetDraining says, by health and on WatchCluster, that this node is about to
// stop. Requests are still answered.
func (s *Server) SetDraining() {
	s.drainOnce.Do(func() {
		close(s.draining)
		s.health.Shutdown()
	})
}

// Drain ends the server gently: connections and calls that are new are refused
// with DRAINING, calls under way finish, streams are ended after what they have
// begun. What is left when ctx ends is cut off.
func (s *Server) Drain(ctx context.Context) error {
	s.SetDraining()
	s.stopOnce.Do(func() { close(s.stopping) })
	s.door.shut()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.grpc.GracefulStop()
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = fmt.Errorf("drain: calls cut off: %w", context.Cause(ctx))
		s.grpc.Stop()
		<-done
	}
	s.asks.Close()
	s.helpers.Wait()
	return err
}

// Close cuts everything off. It waits until no handler runs.
func (s *Server) Close() error {
	s.SetDraining()
	s.stopOnce.Do(func() { close(s.stopping) })
	s.door.shut()
	s.grpc.Stop()
	s.asks.Close()
	s.helpers.Wait()
	return nil
}

// SetRates changes what each principal may do, from now on.
func (s *Server) SetRates(r throttle.Rates) { s.rates.Set(r) }

// address is where the node with that id answers, "" when unknown.
func (s *Server) address(id string) string {
	if id == "" {
		return ""
	}
	return s.cfg.Addresses(id)
}

// leaderOnly is nil on a leader that has applied an entry of its own term.
func (s *Server) leaderOnly() error {
	v := s.replica.View()
	if v.IsLeader {
		return nil
	}
	leader := v.LeaderID
	if leader == s.cfg.NodeID {
		leader = "" // elected, but not ready to speak for the log
	}
	return apierr.NotLeader{Leader: leader, Address: s.address(leader), Term: v.Term}
}
