package telemetry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	hclog "github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/logd-io/logd/pkg/internal/netlimit"
)

// AdminOptions are what the admin server answers with.
type AdminOptions struct {
	Address  string // host:port to bind; port 0 for any
	Gatherer prometheus.Gatherer
	// Ready returns why the process cannot serve, one reason a line; none: it can.
	// It must not block. nil: always ready.
	Ready func() []string
	// Status is encoded as JSON for /api/status. It must not block. nil: 404.
	Status func() any
	Logger hclog.Logger // nil: quiet
}

// Admin is the admin HTTP server: /metrics, /healthz, /readyz and /api/status.
// The first three answer anybody who can reach the port, as a kubelet or
// Prometheus has no certificate; /api answers only this machine.
type Admin struct {
	listener net.Listener
	server   *http.Server

	closeOnce sync.Once
	closeErr  error // written once, by closeOnce
}

// OpenAdmin binds the address. Nothing is answered before Run.
func OpenAdmin(o AdminOptions) (*Admin, error) {
	logger := o.Logger
	if logger == nil {
		logger = hclog.NewNullLogger()
	}
	lis, err := net.Listen("tcp", o.Address)
	if err != nil {
		return nil, fmt.Errorf("admin listener: %w", err)
	}
	return &Admin{
		listener: lis,
		server: &http.Server{
			Handler:           adminHandler(o, logger),
			ReadHeaderTimeout: 5 * time.Second,
			ReadTimeout:       10 * time.Second,
			WriteTimeout:      30 * time.Second,
			IdleTimeout:       2 * time.Minute,
			MaxHeaderBytes:    16 << 10,
			ErrorLog:          logger.StandardLogger(httpLogs()),
		},
	}, nil
}

// httpLogs is for what net/http would write to standard error.
func httpLogs() *hclog.StandardLoggerOptions {
	return &hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}
}

// Addr is the address really bound.
func (a *Admin) Addr() net.Addr { return a.listener.Addr() }

// adminGrace is how long a scrape under way may still take at the end.
const adminGrace = 2 * time.Second

// Run serves until ctx ends or Close is called, and then gives requests under
// way a moment to finish.
func (a *Admin) Run(ctx context.Context) error {
	stopped := make(chan struct{})
	defer close(stopped)
	done := make(chan struct{}) // closed when the shutdown, if there is one, is over
	go func() {                 // turns the end of ctx into a shutdown; Run waits for it
		defer close(done)
		select {
		case <-stopped:
		case <-ctx.Done():
			grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), adminGrace)
			defer cancel()
			if a.server.Shutdown(grace) != nil {
				_ = a.server.Close()
			}
		}
	}()
	// Probes get in during a flood: it is the oldest connection that goes.
	err := a.server.Serve(netlimit.Listener{Listener: a.listener, Newest: netlimit.NewNewest(netlimit.Aside(netlimit.Files()), nil)})
	if ctx.Err() != nil {
		<-done
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("admin server: %w", err)
}

// Close ends the server at once. Calling it again is harmless.
func (a *Admin) Close() error {
	a.closeOnce.Do(func() {
		a.closeErr = a.server.Close()
		if err := a.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			a.closeErr = errors.Join(a.closeErr, err)
		}
	})
	return a.closeErr
}

func adminHandler(o AdminOptions, logger hclog.Logger) http.Handler {
	mux := http.NewServeMux()
	if o.Gatherer != nil {
		mux.Handle("GET /metrics", promhttp.HandlerFor(o.Gatherer, promhttp.HandlerOpts{
			ErrorLog:            logger.StandardLogger(httpLogs()),
			ErrorHandling:       promhttp.ContinueOnError, // one bad collector does not hide the rest
			MaxRequestsInFlight: 4,
			Timeout:             20 * time.Second,
		}))
	}
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		plain(w, http.StatusOK, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		var reasons []string
		if o.Ready != nil {
			reasons = o.Ready()
		}
		if len(reasons) > 0 {
			plain(w, http.StatusServiceUnavailable, strings.Join(reasons, "\n"))
			return
		}
		plain(w, http.StatusOK, "ready")
	})
	if o.Status != nil {
		mux.HandleFunc("GET /api/status", localOnly(func(w http.ResponseWriter, _ *http.Request) {
			body, err := json.MarshalIndent(o.Status(), "", "  ")
			if err != nil {
				logger.Error("status cannot be encoded", "err", err)
				plain(w, http.StatusInternalServerError, "status cannot be encoded")
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(append(body, '\n')) // a client that has gone is not our error
		}))
	}
	return mux
}

// localOnly lets through only those on this machine, asking for it under a name
// of this machine: the second half keeps a web page that resolves its own name
// to 127.0.0.1 from reading along.
func localOnly(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		remote, _, err := net.SplitHostPort(r.RemoteAddr)
		if err != nil || !local(remote) || !local(hostOnly(r.Host)) {
			plain(w, http.StatusForbidden, "only from this machine")
			return
		}
		next(w, r)
	}
}

func hostOnly(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return strings.Trim(hostport, "[]")
}

func local(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func plain(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_, _ = fmt.Fprintln(w, text) // a client that has gone is not our error
}
