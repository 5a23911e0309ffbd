package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// maxAdminEvent bounds one event of /api/events.
const maxAdminEvent = 1 << 20

// Events hands the server-sent events of /api/events to take, until ctx ends, take
// fails or the process says that it stops.
func (a *Admin) Events(ctx context.Context, take func(kind string, data []byte) error) error {
	return a.events(ctx, "", take)
}

// events is Events with a query.
func (a *Admin) events(ctx context.Context, query string, take func(kind string, data []byte) error) error {
	endless := a.client
	endless.Timeout = 0
	res, err := a.ask(ctx, &endless, http.MethodGet, "/api/events"+query)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	switch res.StatusCode {
	case http.StatusOK:
	case http.StatusServiceUnavailable:
		body, _ := io.ReadAll(io.LimitReader(res.Body, maxAdminBody)) // what came says enough
		return errors.New(strings.TrimSpace(string(body)))
	default:
		return a.unexpected(res.StatusCode)
	}
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, maxAdminEvent)
	kind := ""
	for lines.Scan() {
		field, value, _ := bytes.Cut(lines.Bytes(), []byte(": "))
		switch string(field) {
		case "event":
			if kind = string(value); kind == "end" {
				return nil
			}
		case "data":
			if err := take(kind, value); err != nil {
				return err
			}
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("the events ended early: %w", err)
	}
	return errors.New("the events ended early: the process has gone")
}
