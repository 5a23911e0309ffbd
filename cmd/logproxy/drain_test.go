package main

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/telemetry"
)

func TestDrain(t *testing.T) {
	asked := make(chan struct{}, 1) // 1: the one who asks does not wait
	a, err := telemetry.OpenAdmin(telemetry.AdminOptions{Address: "127.0.0.1:0", Drain: func() { asked <- struct{}{} }})
	require.NoError(t, err)
	done := make(chan error, 1) // 1: Run's result
	ctx, stop := context.WithCancel(t.Context())
	go func() { done <- a.Run(ctx) }()
	addr := a.Addr().String()

	require.Equal(t, result{0, "The proxy drains.\n", ""}, logproxy(t, "drain", "-timeout", "0", "-admin", addr))
	<-asked
	require.JSONEq(t, `{"state": "draining"}`, logproxy(t, "drain", "-timeout", "0", "-format", "json", "-admin", addr).stdout)
	<-asked
	got := logproxy(t, "drain", "-timeout", "200ms", "-admin", addr)
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "it still drains after 200ms")
	<-asked

	go func() { <-asked; stop() }() // the command waits for what it does
	require.Equal(t, result{0, "The proxy has stopped.\n", ""}, logproxy(t, "drain", "-admin", addr))
	require.NoError(t, <-done)

	got = logproxy(t, "drain", "-admin", addr)
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "refused")

	got = logproxy(t, "drain", "-admin", startAdmin(t, telemetry.AdminOptions{}))
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "404")
}
