package e2e_test

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/test/harness"
)

// TestReload changes the configuration of running processes: what they can take they
// take on SIGHUP, all of it, and a mistake changes nothing.
func TestReload(t *testing.T) {
	t.Parallel()
	w := prepare(t, nil, func(o *harness.Options) { o.NodeConfig += "log { segment_size = \"1MiB\" }\n" })
	require.NoError(t, w.Start())
	require.NoError(t, w.Ready(w.ctx))
	client := logv1.NewLogClient(w.naive())
	value := bytes.Repeat([]byte("x"), 200<<10)
	for range 50 {
		_, err := client.Produce(w.ctx, &logv1.ProduceRequest{Record: &logv1.Record{Value: value}})
		require.NoError(t, err)
	}
	lowest := func() uint64 {
		res, err := client.GetOffsets(w.ctx, &logv1.GetOffsetsRequest{})
		require.NoError(t, err)
		return res.GetLowest()
	}
	hangup := func(p *harness.Process, says string) {
		t.Helper()
		before := len(fileText(t, p.Log)) // of the end alone, what was said before may go as well
		require.NoError(t, p.Signal(syscall.SIGHUP))
		w.until(p.Name+" says "+says, func() error {
			if said := fileText(t, p.Log)[before:]; !strings.Contains(said, says) {
				return errors.New(said)
			}
			return nil
		})
	}

	n := w.Nodes[0]
	good := fileText(t, n.Config)
	replaceFile(t, n.Config, good+"retain { size = \"4MiB\" \n")
	hangup(n.Process, "Nothing was changed")
	require.Zero(t, w.gauge(n.Admin, "logd_config_last_reload_successful"))
	replaceFile(t, n.Config, strings.Replace(good, "[", "[\"localhost:1\", ", 1)+"retain { size = \"4MiB\" }\n")
	hangup(n.Process, "a restart is needed for retry_join")
	require.Zero(t, lowest())

	replaceFile(t, n.Config, good)
	for _, n := range w.Nodes {
		replaceFile(t, n.Config, strings.Replace(fileText(t, n.Config), `"info"`, `"debug"`, 1)+"retain { size = \"4MiB\" }\n")
		hangup(n.Process, "reloaded: took=")
		require.InDelta(t, 1, w.gauge(n.Admin, "logd_config_last_reload_successful"), 0)
	}
	require.Eventually(t, func() bool { return lowest() > 0 }, patience, 50*time.Millisecond, "what is kept has changed")
	require.Eventually(t, func() bool { return strings.Contains(n.Tail(1000), "[DEBUG]") }, patience, 50*time.Millisecond)

	// Certificates that do not load keep the rest from being taken.
	key := w.Cert(n.Name).Key
	require.NoError(t, os.Chmod(key, 0o644))
	replaceFile(t, n.Config, strings.Replace(fileText(t, n.Config), `"debug"`, `"trace"`, 1))
	hangup(n.Process, "Nothing was changed")
	require.NoError(t, os.Chmod(key, 0o600))
	hangup(n.Process, "reloaded: took=")

	// A rate that is set, met, and taken away again: at all nodes, which count what the
	// proxy asks for its clients, and at the proxy.
	const limits = "limits { request_rate = 10 }\n"
	rate := func(set bool, p *harness.Process, file string) {
		t.Helper()
		text := strings.ReplaceAll(fileText(t, file), limits, "")
		if set {
			text += limits
		}
		replaceFile(t, file, text)
		hangup(p, "reloaded: took=")
	}
	ask := func() (refused int) {
		for range 200 {
			if _, err := client.GetOffsets(w.ctx, &logv1.GetOffsetsRequest{}); err != nil {
				require.ErrorContains(t, err, "request_rate")
				refused++
			}
		}
		return refused
	}
	require.Zero(t, ask())
	for _, set := range []bool{true, false} {
		for _, n := range w.Nodes {
			rate(set, n.Process, n.Config)
		}
		require.Equal(t, set, ask() > 0)
	}
	for _, set := range []bool{true, false} {
		rate(set, w.Proxy[0].Process, w.Proxy[0].Config)
		require.Equal(t, set, ask() > 0)
	}

	p := w.Proxy[0]
	text := strings.Replace(fileText(t, p.Config), `"info"`, `"debug"`, 1)
	replaceFile(t, p.Config, text)
	hangup(p.Process, "reloaded: took=")
	require.InDelta(t, 1, w.gauge(p.Admin, "logproxy_config_last_reload_successful"), 0)
	replaceFile(t, p.Config, text+"principal = \"another\"\n")
	hangup(p.Process, "a restart is needed for principal")
	require.Zero(t, w.gauge(p.Admin, "logproxy_config_last_reload_successful"))
}
