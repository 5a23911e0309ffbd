package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// probeEvery is how often Until asks. It looks from outside at programs that
// have no way to call back.
const probeEvery = 20 * time.Millisecond

// Until calls ok until it returns nil or ctx ends; then the error holds what ok
// said last. An error from Ended ends the wait at once.
func Until(ctx context.Context, ok func() error) error {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		err := ok()
		if err == nil {
			return nil
		}
		var ended *endedError
		if errors.As(err, &ended) {
			return ended.err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w; last: %w", context.Cause(ctx), err)
		}
	}
}

// Ended marks an error after which Until need not ask again.
func Ended(err error) error { return &endedError{err} }

type endedError struct{ err error }

func (e *endedError) Error() string { return e.err.Error() }
func (e *endedError) Unwrap() error { return e.err }

func httpOK(ctx context.Context, url string) error {
	_, err := Get(ctx, url)
	return err
}

// Get is the body of a page, if it is there within a second.
func Get(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s: %s", url, resp.Status, strings.TrimSpace(string(body[:min(len(body), 1<<10)])))
	}
	return string(body), nil
}
