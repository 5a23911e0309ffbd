package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/logd-io/logd/internal/cli"
)

// defaultAdmin is admin.address where nothing is said.
const defaultAdmin = "127.0.0.1:8412"

// adminFlag adds -admin. LOGPROXY_ADMIN_ADDRESS is its default, as it is the
// agent's own.
func adminFlag(fs *flag.FlagSet, env cli.Env) *string {
	address := env.Getenv("LOGPROXY_ADMIN_ADDRESS")
	if address == "" {
		address = defaultAdmin
	}
	return fs.String("admin", address, "`host:port` of the proxy's admin server. LOGPROXY_ADMIN_ADDRESS. Default: "+defaultAdmin)
}

// admin asks a proxy's admin server.
type admin struct {
	address string
	client  http.Client
}

func newAdmin(address string) (*admin, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil || port == "" {
		return nil, cli.Usagef("-admin %q: host:port", address)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		address = net.JoinHostPort("127.0.0.1", port) // where a server bound to everything is reached
	}
	return &admin{
		address: address,
		client:  http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second},
	}, nil
}

// get answers the status and at most a mebibyte of the body.
func (a *admin) get(ctx context.Context, path string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+a.address+path, nil)
	if err != nil {
		return 0, "", err
	}
	res, err := a.client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	return res.StatusCode, strings.TrimSpace(string(body)), err
}

// ready is nil when the proxy can serve, else why not.
func (a *admin) ready(ctx context.Context) error {
	code, body, err := a.get(ctx, "/readyz")
	switch {
	case err != nil:
		return err
	case code == http.StatusOK:
		return nil
	case code == http.StatusServiceUnavailable:
		return errors.New(strings.ReplaceAll(body, "\n", "; "))
	}
	return fmt.Errorf("%s answers %d: is it a logproxy's admin server?", a.address, code)
}

// askPace is how often readiness is asked for: it is HTTP, which announces nothing.
const askPace = 100 * time.Millisecond

func waitCommand() cli.Command {
	return cli.Command{
		Name:     "wait",
		Synopsis: "Wait until the proxy can serve",
		Long: `Ends with 0 as soon as the proxy is ready, and with 1 and the reason when it is
not in time. For start-up probes and for scripts that start a proxy.`,
		Setup: func(fs *flag.FlagSet, env cli.Env) cli.Action {
			address := adminFlag(fs, env)
			timeout := fs.Duration("timeout", time.Minute, "`duration` to wait at most; 0 asks once. Default: 1m")
			return func(ctx context.Context, _ []string) error {
				a, err := newAdmin(*address)
				if err != nil {
					return err
				}
				bound := time.NewTimer(*timeout)
				defer bound.Stop()
				tick := time.NewTicker(askPace)
				defer tick.Stop()
				for {
					last := a.ready(ctx)
					if last == nil {
						return nil
					}
					select {
					case <-tick.C:
					case <-bound.C:
						return fmt.Errorf("not ready: %w", last)
					case <-ctx.Done():
						return errors.New("interrupted")
					}
				}
			}
		},
	}
}
