package main

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/telemetry"
)

func TestReload(t *testing.T) {
	var changed []string
	var wrong error
	addr := startAdmin(t, telemetry.AdminOptions{Reload: func() ([]string, error) { return changed, wrong }})
	require.Equal(t, result{0, "Reloaded; no setting has changed.\n", ""}, logproxy(t, "reload", "-admin", addr))
	require.JSONEq(t, `{"reloaded": true, "changed": []}`, logproxy(t, "reload", "-format", "json", "-admin", addr).stdout)

	changed = []string{"limits.produce_rate", "log_level"}
	require.Equal(t, result{0, "Reloaded; changed: limits.produce_rate, log_level.\n", ""}, logproxy(t, "reload", "-admin", addr))
	require.JSONEq(t, `{"reloaded": true, "changed": ["limits.produce_rate", "log_level"]}`, logproxy(t, "reload", "-format", "json", "-admin", addr).stdout)

	changed, wrong = nil, errors.New("a restart is needed for name: put it back, or restart")
	got := logproxy(t, "reload", "-admin", addr)
	require.Equal(t, 1, got.code)
	require.Empty(t, got.stdout)
	require.Contains(t, got.stderr, "nothing was changed: a restart is needed for name")
	got = logproxy(t, "reload", "-format", "json", "-admin", addr)
	require.Equal(t, 1, got.code)
	require.JSONEq(t, `{"reloaded": false, "changed": [], "error": "a restart is needed for name: put it back, or restart"}`, got.stdout)

	got = logproxy(t, "reload", "-admin", startAdmin(t, telemetry.AdminOptions{}))
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "404")
}
