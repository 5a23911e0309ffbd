package main

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A sample of what make soak runs for ten minutes.
func TestSoakSample(t *testing.T) {
	bin := t.TempDir()
	out, err := exec.Command("go", "build", "-o", bin+string(filepath.Separator),
		"github.com/logd-io/logd/cmd/logd", "github.com/logd-io/logd/cmd/logproxy").CombinedOutput()
	require.NoError(t, err, "%s", out)
	ctx, cancel := context.WithTimeoutCause(t.Context(), 5*time.Minute, errors.New("the test took too long"))
	defer cancel()
	// A machine that runs other tests meanwhile is slow to elect a leader.
	s := soak{
		bin: bin, dir: t.TempDir(), lasts: 20 * time.Second, heartbeat: time.Second, hold: time.Minute,
		kept: 256 << 20, rate: 300, seed: 1, out: testWriter{t},
	}
	require.NoError(t, s.run(ctx))
	require.Positive(t, s.counts.troubles.Load())
	require.Positive(t, s.counts.hostile.Load())
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", b)
	return len(b), nil
}
