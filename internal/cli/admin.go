package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// Admin asks the admin server of a process on this machine.
type Admin struct {
	address string
	client  http.Client
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
		address: address,
		client:  http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second},
	}, nil
}

// maxAdminBody bounds what is read of an answer.
const maxAdminBody = 1 << 20

func (a *Admin) get(ctx context.Context, path string) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+a.address+path, nil)
	if err != nil {
		return 0, nil, err
	}
	res, err := a.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAdminBody))
	return res.StatusCode, body, err
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

func (a *Admin) unexpected(code int) error {
	return fmt.Errorf("%s answers %d %s: is it the admin server of this program, on this machine?", a.address, code, http.StatusText(code))
}
