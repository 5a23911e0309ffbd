package cli

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/logd-io/logd/pkg/telemetry"
)

// Admin asks the admin server of a process, on this machine or, with TLS, on any.
type Admin struct {
	scheme  string
	address string
	client  http.Client
}

// AdminFlags adds -admin, of which variable and then address are the default, and
// -ca-cert, -cert and -key for servers that speak TLS. what has the server: "node".
func AdminFlags(fs *flag.FlagSet, env Env, what, variable, address string) *AdminConnect {
	c := &AdminConnect{}
	fs.StringVar(&c.Address, "admin", or(env.Getenv(variable), address),
		"`host:port` of the "+what+"'s admin server. "+variable+". Default: "+address)
	c.flags(fs, env, "For an admin server that speaks TLS")
	return c
}

// AdminConnect are the flags of a command that talks to an admin server.
type AdminConnect struct {
	Certs
	Address string
}

// Open makes the Admin. It asks nothing yet.
func (c *AdminConnect) Open() (*Admin, error) {
	conf, err := c.load("")
	if err != nil {
		return nil, err
	}
	return NewAdminTLS(c.Address, conf)
}

// NewAdminTLS is NewAdmin for a server that speaks TLS; conf nil: it does not. With
// certificates at hand, one on this machine that turns out to speak plaintext is asked
// in plaintext: they may be there for another command.
func NewAdminTLS(address string, conf *tls.Config) (*Admin, error) {
	a, err := NewAdmin(address)
	if err != nil || conf == nil {
		return a, err
	}
	a.scheme = "https"
	a.client.Transport = &http.Transport{DisableKeepAlives: true, TLSClientConfig: conf}
	return a, nil
}

// NewAdmin is for the admin server bound to address. A server bound to every
// address is asked on loopback, since it tells its status to this machine only.
func NewAdmin(address string) (*Admin, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil || port == "" {
		return nil, Usagef("-admin %q: host:port", address)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		address = net.JoinHostPort("127.0.0.1", port)
	}
	return &Admin{
		scheme:  "http",
		address: address,
		client:  http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second},
	}, nil
}

// maxAdminBody bounds what is read of an answer.
const maxAdminBody = 1 << 20

func (a *Admin) get(ctx context.Context, path string) (int, []byte, error) {
	return a.exchange(ctx, http.MethodGet, path)
}

func (a *Admin) exchange(ctx context.Context, method, path string) (int, []byte, error) {
	res, err := a.ask(ctx, &a.client, method, path)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAdminBody))
	return res.StatusCode, body, err
}

func (a *Admin) ask(ctx context.Context, client *http.Client, method, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, a.scheme+"://"+a.address+path, nil)
	if err != nil {
		return nil, err
	}
	res, err := client.Do(req)
	if errors.Is(err, http.ErrSchemeMismatch) && a.here() {
		a.scheme = "http"
		return a.ask(ctx, client, method, path)
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("%w (is it running, and is this its -admin address?)", err)
	}
	return res, err
}

// here says that the server is on this machine for certain.
func (a *Admin) here() bool {
	host, _, _ := net.SplitHostPort(a.address)
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Ready is nil when the process can serve, and else tells why not.
func (a *Admin) Ready(ctx context.Context) error {
	code, body, err := a.get(ctx, "/readyz")
	switch {
	case err != nil:
		return err
	case code == http.StatusOK:
		return nil
	case code == http.StatusServiceUnavailable:
		return errors.New(strings.ReplaceAll(strings.TrimSpace(string(body)), "\n", "; "))
	}
	return a.unexpected(code)
}

// askPace is how often readiness is asked for: it is HTTP, which announces nothing.
const askPace = 100 * time.Millisecond

// WaitReady asks at least once, until the process can serve or ctx ends; then
// the error tells why it cannot.
func (a *Admin) WaitReady(ctx context.Context) error {
	tick := time.NewTicker(askPace)
	defer tick.Stop()
	for {
		// One question may outlive ctx, by the client's timeout: its answer is the reason.
		err := a.Ready(context.WithoutCancel(ctx))
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w", err)
		}
	}
}

// Status decodes /api/status.
func (a *Admin) Status(ctx context.Context, into any) error {
	code, body, err := a.get(ctx, "/api/status")
	switch {
	case err != nil:
		return err
	case code != http.StatusOK:
		return a.unexpected(code)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("status of %s: %w", a.address, err)
	}
	return nil
}

// Drain makes the process drain and end. It does not wait for that.
func (a *Admin) Drain(ctx context.Context) error {
	code, _, err := a.exchange(ctx, http.MethodPost, "/api/drain")
	if err == nil && code != http.StatusAccepted {
		err = a.unexpected(code)
	}
	return err
}

// Reload has the process read its configuration and what that names again, and answers
// the settings that have changed.
func (a *Admin) Reload(ctx context.Context) (changed []string, err error) {
	code, body, err := a.exchange(ctx, http.MethodPost, "/api/reload")
	switch {
	case err != nil:
		return nil, err
	case code == http.StatusConflict:
		return nil, &UnchangedError{strings.TrimSpace(string(body))}
	case code != http.StatusOK:
		return nil, a.unexpected(code)
	}
	var answer telemetry.Reloaded
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("answer of %s: %w", a.address, err)
	}
	return answer.Changed, nil
}

// UnchangedError is why a process that was to reload has changed nothing.
type UnchangedError struct{ Why string }

func (e *UnchangedError) Error() string { return "nothing was changed: " + e.Why }

// WaitEnded returns when nothing answers any more, or with ctx's error.
func (a *Admin) WaitEnded(ctx context.Context) error {
	tick := time.NewTicker(askPace)
	defer tick.Stop()
	for {
		_, _, err := a.get(ctx, "/healthz")
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, syscall.ECONNREFUSED):
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (a *Admin) unexpected(code int) error {
	switch {
	case code == http.StatusBadRequest && a.scheme == "http":
		return fmt.Errorf("%s answers %d %s: does it speak TLS? Then -ca-cert, -cert and -key are needed", a.address, code, http.StatusText(code))
	case code == http.StatusForbidden && a.scheme == "https":
		return fmt.Errorf("%s answers %d %s: from elsewhere a certificate of role admin is needed", a.address, code, http.StatusText(code))
	}
	return fmt.Errorf("%s answers %d %s: is it the admin server of this program, on this machine?", a.address, code, http.StatusText(code))
}
