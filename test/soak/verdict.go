package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/test/harness"
)

// vitals are what the proxy's process takes.
type vitals struct {
	goroutines, files, memory, connections, calls float64
}

func (v vitals) String() string {
	return fmt.Sprintf("%.0f goroutines, %.0f files, %.0f MiB, %.0f connections, %.0f calls",
		v.goroutines, v.files, v.memory/(1<<20), v.connections, v.calls)
}

func (s *soak) vitals(ctx context.Context) (v vitals, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.proxy.Admin+"/metrics", nil)
	if err != nil {
		return v, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return v, err
	}
	defer resp.Body.Close()
	want := map[string]*float64{
		"go_goroutines": &v.goroutines, "process_open_fds": &v.files, "process_resident_memory_bytes": &v.memory,
		"logproxy_connections": &v.connections, "logproxy_calls": &v.calls,
	}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if to := want[name]; to != nil {
			if *to, err = strconv.ParseFloat(value, 64); err != nil {
				return v, fmt.Errorf("%s: %w", name, err)
			}
			delete(want, name)
		}
	}
	if err := lines.Err(); err != nil {
		return v, err
	}
	if len(want) > 0 {
		return v, fmt.Errorf("the proxy does not tell %v", want)
	}
	return v, nil
}

// verdict holds the logs against what was acknowledged, and the proxy against what
// it was at the start.
func (s *soak) verdict(ctx context.Context, start vitals) error {
	var bad []error
	s.say("waiting until the proxy has let go of everything")
	var v vitals
	until, cancel := context.WithTimeout(ctx, goneWithin)
	err := every(until, time.Second, func() (bool, error) {
		var err error
		v, err = s.vitals(ctx)
		return v.goroutines <= start.goroutines+goroutinesKept && v.files <= start.files+filesKept &&
			v.memory <= start.memory+s.kept && v.calls == 0, err
	})
	cancel()
	if err != nil {
		bad = append(bad, fmt.Errorf("the proxy was at %s and is at %s: %w", start, v, err))
	}
	s.say("at the end the proxy has %s", v)

	s.say("reading the whole log from each node")
	if err := s.c.Ready(ctx); err != nil {
		return err
	}
	leader, err := s.c.Leader(ctx)
	if err != nil {
		return err
	}
	st, err := s.c.Stats(ctx, leader)
	if err != nil {
		return err
	}
	var first []*logv1.Record
	var worst harness.Verdict
	for _, n := range s.c.Nodes {
		recs, err := s.c.ReadNode(ctx, n, st.GetVisible())
		if err != nil {
			return fmt.Errorf("read %s: %w", n.Name, err)
		}
		got, err := harness.Check(recs, s.acked)
		if err != nil {
			return fmt.Errorf("read %s: %w", n.Name, err)
		}
		worst = harness.Verdict{InLog: got.InLog, Lost: max(worst.Lost, got.Lost), Duplicates: max(worst.Duplicates, got.Duplicates)}
		if first == nil {
			first = recs
		} else if err := harness.Same(first, recs); err != nil {
			bad = append(bad, fmt.Errorf("%s differs from %s: %w", n.Name, s.c.Nodes[0].Name, err))
		}
	}
	if worst.Lost+worst.Duplicates > 0 || worst.InLog != uint64(len(s.acked)) {
		bad = append(bad, errors.New("the figures below are not what they must be"))
	}
	s.say("done: acked %d  in log %d  lost %d  duplicates %d  client errors 0  longest wait %s",
		len(s.acked), worst.InLog, worst.Lost, worst.Duplicates, time.Duration(s.counts.longest.Load()).Round(time.Millisecond))
	if len(bad) > 0 {
		return errors.Join(append(bad, errVerdict)...)
	}
	return nil
}
