package devcluster_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/config"
	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/devcluster"
	"github.com/logd-io/logd/pkg/internal/testutil"
	"github.com/logd-io/logd/pkg/replica"
)

// checkpoints are the files of a node's checkpoints, oldest first.
func checkpoints(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "raft", "checkpoints", "*.ckp"))
	require.NoError(t, err)
	slices.Sort(names)
	return names
}

// tamper makes a checkpoint one of another state that verifies all the same, as
// if a bit had flipped in memory before it was written: the rolling hash in it is
// another. docs/format.md draws the file and the state.
func tamper(t *testing.T, name string) {
	t.Helper()
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	le, crc := binary.LittleEndian, crc32.MakeTable(crc32.Castagnoli)
	const header, uuid = 68, 36
	state := b[header+le.Uint32(b[12:]):]
	require.Equal(t, byte(uuid), state[1])
	state[2+uuid+5*8] ^= 1
	le.PutUint32(b[60:], crc32.Checksum(b[header:], crc))
	le.PutUint32(b[64:], crc32.Checksum(b[:64], crc))
	require.NoError(t, os.WriteFile(name, b, 0o600))
}

// A node that comes up with another state than the others' ends with a fault that
// no process may survive, does not come up with that data again, and the others
// go on.
func TestDivergedNodeEndsItsProcess(t *testing.T) {
	dir := t.TempDir()
	opt := devcluster.Options{Dir: dir, AnyPort: true, Heartbeat: time.Second, Configure: func(c *config.Node) {
		c.Raft.AnnounceInterval = 200 * time.Millisecond
		c.Log.SegmentSize = 64 << 10
		c.Retain.Size = 256 << 10 // what goes makes a checkpoint due
	}}
	c, err := devcluster.Start(opt)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	log := client(t, c)
	value := make([]byte, 32<<10)
	put := func() {
		_, err := log.Produce(t.Context(), &logv1.ProduceRequest{Record: &logv1.Record{Value: value}})
		require.NoError(t, err)
	}
	var wrong *devcluster.Node
	testutil.Eventually(t, patience, func() error {
		put()
		for _, n := range c.Nodes() {
			if n != c.Leader() && len(checkpoints(t, filepath.Join(dir, n.Name))) > 0 {
				wrong = n
				return nil
			}
		}
		return errors.New("no follower has a checkpoint")
	})
	wrong.Stop()
	tamper(t, slices.Max(checkpoints(t, filepath.Join(dir, wrong.Name))))
	require.NoError(t, wrong.Revive())
	var failed error
	testutil.Eventually(t, patience, func() error {
		put()
		select {
		case failed = <-c.Failed():
			return nil
		default:
			return errors.New("it has not ended")
		}
	})
	require.True(t, strings.HasPrefix(failed.Error(), wrong.Name+": "), failed)
	var fatal *replica.FatalError
	require.ErrorAs(t, failed, &fatal)
	var diverged *replica.DivergenceError
	require.ErrorAs(t, failed, &diverged)
	require.Equal(t, 2, diverged.Votes)
	put()
	testutil.Eventually(t, patience, func() error {
		if wrong.Running() {
			return errors.New("it is being closed")
		}
		return nil
	})
	err = wrong.Revive()
	require.ErrorAs(t, err, &diverged)
	require.ErrorContains(t, err, "remove-peer")
	put()
}

// scrape reads a node's metrics.
func scrape(t *testing.T, n *devcluster.Node) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+n.Agent().AdminAddr()+"/metrics", nil)
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer http.DefaultClient.CloseIdleConnections()
	defer func() { require.NoError(t, resp.Body.Close()) }()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return string(b)
}

// Records go by the age their leader's clock gave them, as long as the others'
// clocks agree.
func TestRetentionByAgeGoesByTheClocksOfAll(t *testing.T) {
	clocks := map[string]func() time.Time{}
	skew := map[string]*skewed{}
	for i := 1; i <= 3; i++ {
		name := fmt.Sprintf("node%d", i)
		skew[name] = new(skewed)
		clocks[name] = skew[name].now
	}
	c := start(t, devcluster.Options{Clocks: clocks, Configure: func(c *config.Node) { c.Retain.Age = time.Hour }})
	log := client(t, c)
	for range 10 {
		_, err := log.Produce(t.Context(), &logv1.ProduceRequest{Record: &logv1.Record{Value: []byte("a")}})
		require.NoError(t, err)
	}
	offsets := func() *logv1.GetOffsetsResponse {
		resp, err := log.GetOffsets(t.Context(), &logv1.GetOffsetsRequest{})
		require.NoError(t, err)
		return resp
	}
	// The leader alone is two hours ahead. It looks again and again, and says in the
	// end that it does not age anything.
	l := leader(t, c)
	skew[l.Name].Store(int64(2 * time.Hour))
	testutil.Eventually(t, patience, func() error {
		if !strings.Contains(scrape(t, l), "\nlogd_replica_retention_paused 1\n") {
			return errors.New("retention is not paused")
		}
		return nil
	})
	require.Zero(t, offsets().GetLowest())
	for _, s := range skew {
		s.Store(int64(2 * time.Hour))
	}
	testutil.Eventually(t, patience, func() error {
		if o := offsets(); o.GetLowest() != 10 || o.GetNext() != 10 {
			return fmt.Errorf("offsets are %v", o)
		}
		return nil
	})
}
