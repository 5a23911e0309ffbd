package agent_test

import (
	"bufio"
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/config"
	"github.com/logd-io/logd/pkg/agent"
	"github.com/logd-io/logd/pkg/internal/testutil"
)

// lines is a log that is read while it is written.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

// with gives the lines that have what.
func (l *lines) with(what string) (found []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range strings.Split(l.buf.String(), "\n") {
		if strings.Contains(line, what) {
			found = append(found, line)
		}
	}
	return found
}

// A minute where a month was meant deletes what there is, at once and for good. The log
// and the page say how much that is; of a change that deletes nothing they say nothing.
func TestAChangeOfRetainSaysWhatItDeletes(t *testing.T) {
	w := newWorld(t)
	c := w.config("n1", 1)
	log := new(lines)
	a, err := agent.Open(c, agent.Deps{Version: "test", Logger: hclog.New(&hclog.LoggerOptions{Output: log})})
	require.NoError(t, err)
	n := w.run(a)
	n.until("ready", ready)
	for i := range 10 {
		w.produce(fmt.Sprint(i), n)
	}
	const told = "this change of retain deletes records"
	reload := func(keep config.Retain) {
		_, err := a.Reload(func() (config.Node, error) {
			next := c
			next.Retain = keep
			return next, nil
		})
		require.NoError(t, err)
	}
	reload(config.Retain{Age: 30 * 24 * time.Hour, Size: 1 << 40})
	require.Empty(t, log.with(told))

	reload(config.Retain{Age: time.Nanosecond}) // a machine is quick: the tenth may not be a millisecond old
	warned := log.with(told)
	require.Len(t, warned, 1)
	for _, part := range []string{"[WARN]", "records=10", "bytes=", "lowest=0", "lowest_after=10", "left=0", "age=1ns"} {
		require.Contains(t, warned[0], part)
	}
	testutil.Eventually(t, patience, func() error {
		if found := log.with("lowest offset moved"); len(found) == 0 {
			return fmt.Errorf("it has not come to that")
		}
		return nil
	})
	reload(config.Retain{Age: 2 * time.Nanosecond})
	require.Len(t, log.with(told), 1, "nothing is left to go")

	req, err := http.NewRequestWithContext(testutil.Context(t, patience), http.MethodGet, "http://"+a.AdminAddr()+"/api/events", nil)
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	events := bufio.NewScanner(resp.Body)
	for events.Scan() && !strings.Contains(events.Text(), "a change of retain deletes 10 records") {
	}
	require.NoError(t, events.Err())
	require.Contains(t, events.Text(), "the lowest offset goes from 0 to 10, and 0 are left")
	http.DefaultClient.CloseIdleConnections()
}
