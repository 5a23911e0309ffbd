package telemetry

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"sync"
	"time"

	hclog "github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/logd-io/logd/pkg/internal/netlimit"
	"github.com/logd-io/logd/pkg/tlsconf"
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
	// Page answers what nothing else here does, to this machine. Its streams are to be
	// ended before Run's ctx. nil: 404.
	Page http.Handler
	// Drain is what POST /api/drain begins. It must not block, and may be called again.
	// nil: 404.
	Drain func()
	// Reload is what POST /api/reload does: it answers the settings that have changed, or
	// why nothing has. nil: 404.
	Reload func() (changed []string, err error)
	// Profiling adds /debug/pprof: what the process does and where its memory is. It
	// slows the process down while somebody looks.
	Profiling bool
	// TLS makes the port speak TLS, with this certificate, and operators come from
	// elsewhere: holders of role admin. nil: plaintext.
	TLS    *tlsconf.Source
	Logger hclog.Logger // nil: quiet; a *Logger, or one named after it, is what /api/monitor shows
}

// Admin is the admin HTTP server: /metrics, /healthz, /readyz, /api/status, /api/monitor
// and, where asked for, /api/drain, /api/reload and /debug/pprof. The first three answer anybody who can reach the port, as a
// kubelet or Prometheus has no certificate; all else answers only this machine and, with
// TLS, operators.
type Admin struct {
	listener net.Listener
	server   *http.Server
	tls      *tls.Config   // nil: plaintext
	stopping chan struct{} // closed when no request may wait any more

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
	a := &Admin{listener: lis, stopping: make(chan struct{})}
	a.server = &http.Server{
		Handler:           a.handler(o, logger),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          logger.StandardLogger(httpLogs()),
	}
	a.server.RegisterOnShutdown(func() { close(a.stopping) })
	if o.TLS != nil {
		a.tls = o.TLS.Open()
	}
	return a, nil
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
	var lis net.Listener = netlimit.Listener{Listener: a.listener, Newest: netlimit.NewNewest(netlimit.Aside(netlimit.Files()), nil)}
	if a.tls != nil {
		lis = tls.NewListener(lis, a.tls) // a handshake has ReadHeaderTimeout
	}
	err := a.server.Serve(lis)
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

func (a *Admin) handler(o AdminOptions, logger hclog.Logger) http.Handler {
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
		mux.HandleFunc("GET /api/status", func(w http.ResponseWriter, _ *http.Request) {
			body, err := json.MarshalIndent(o.Status(), "", "  ")
			if err != nil {
				logger.Error("status cannot be encoded", "err", err)
				plain(w, http.StatusInternalServerError, "status cannot be encoded")
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(append(body, '\n')) // a client that has gone is not our error
		})
	}
	if o.Drain != nil {
		order(mux, "/api/drain", func(w http.ResponseWriter, r *http.Request) {
			logger.Info("asked to drain", "by", r.RemoteAddr)
			o.Drain()
			plain(w, http.StatusAccepted, "draining")
		})
	}
	if o.Reload != nil {
		order(mux, "/api/reload", func(w http.ResponseWriter, r *http.Request) {
			logger.Info("asked to reload", "by", r.RemoteAddr)
			changed, err := o.Reload()
			if err != nil {
				plain(w, http.StatusConflict, err.Error())
				return
			}
			body, err := json.Marshal(Reloaded{Changed: append([]string{}, changed...)})
			if err != nil {
				plain(w, http.StatusInternalServerError, err.Error())
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(append(body, '\n')) // a client that has gone is not our error
		})
	}
	if o.Profiling {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	if o.Page != nil {
		mux.Handle("/", o.Page)
	}
	if l, ok := o.Logger.(*Logger); ok {
		mux.HandleFunc("GET /api/monitor", a.monitor(l))
	}
	return guard(mux, o.TLS)
}

// Reloaded is what POST /api/reload answers when it was done; what was not is answered with
// 409 and the reason.
type Reloaded struct {
	Changed []string `json:"changed"` // settings, by HCL path
}

// order has do carry out what is posted to path. A form on another site's page needs no
// leave to send a POST.
func order(mux *http.ServeMux, path string, do http.HandlerFunc) {
	mux.Handle("POST "+path, http.NewCrossOriginProtection().Handler(do))
}

// maxBodyBytes is what a request may carry. Nothing here takes anything.
const maxBodyBytes = 4 << 10

// open is what answers whoever can reach the port.
func open(path string) bool { return path == "/healthz" || path == "/readyz" || path == "/metrics" }

// guard lets through to all else, what there is and what there is not, operators that
// own knows by their certificate, and those on this machine, by the address of the
// connection and by nothing they say of themselves. These have to ask under a name of
// this machine, which keeps a web page that resolves its own name to 127.0.0.1 from
// reading along; and nobody comes from another site's page.
func guard(next http.Handler, own *tlsconf.Source) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBodyBytes)
		if !open(r.URL.Path) {
			remote, _, err := net.SplitHostPort(r.RemoteAddr)
			here := err == nil && plainLoopback(remote) && local(hostOnly(r.Host))
			if !here && !operator(r, own) || elsewhere(r.Header.Get("Sec-Fetch-Site")) {
				why := "only from this machine"
				if own != nil {
					why += ", or with a certificate of role " + string(tlsconf.RoleAdmin)
				}
				plain(w, http.StatusForbidden, why)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

func operator(r *http.Request, own *tlsconf.Source) bool {
	return own != nil && r.TLS != nil && own.Holds(*r.TLS, tlsconf.RoleAdmin) == nil
}

// elsewhere says that a browser asks on behalf of another site's page. Others than
// browsers say nothing.
func elsewhere(site string) bool { return site != "" && site != "same-origin" && site != "none" }

func hostOnly(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return strings.Trim(hostport, "[]")
}

// plainLoopback says that somebody on this machine connected as one does who is asked nothing
// else. Other addresses of the loopback are bound by what passes connections on: a mesh's
// sidecar comes from 127.0.0.6 for all the world.
func plainLoopback(remote string) bool {
	ip := net.ParseIP(remote)
	return ip.Equal(net.IPv4(127, 0, 0, 1)) || ip.Equal(net.IPv6loopback)
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
