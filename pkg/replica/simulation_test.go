package replica

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// simLength is the trouble of one seed, in virtual time.
const simLength = 10 * time.Minute

// TestSimulation is some virtual minutes of the simulator, in which Raft's
// safety properties and what logd promises are checked at every step. Many more
// are run by make sim; one seed again by make sim SIM_SEED=n.
func TestSimulation(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			res := simulate(t, simOptions{seed: seed, length: time.Minute})
			t.Logf("%v virtual; %s", res.virtual.Round(time.Second), res.counts)
			res.require(t, seed)
		})
	}
}

func (r simResult) require(t *testing.T, seed uint64) {
	if r.found != nil {
		t.Fatalf("%s\nagain: make sim SIM_SEED=%d", r.report(seed), seed)
	}
}

// report is everything about a violation.
func (r simResult) report(seed uint64) string {
	return fmt.Sprintf("%s\nseed %d, %v into it: violated %q: %s", r.tail, seed, r.found.at, r.found.check, r.found.text)
}

func (c counts) String() string {
	var parts []string
	v := reflect.ValueOf(c)
	for i := range v.NumField() {
		if n := v.Field(i).Int(); n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", strings.ToLower(v.Type().Field(i).Name), n))
		}
	}
	return strings.Join(parts, ", ")
}

func (c *counts) add(d counts) {
	v, o := reflect.ValueOf(c).Elem(), reflect.ValueOf(d)
	for i := range v.NumField() {
		v.Field(i).SetInt(v.Field(i).Int() + o.Field(i).Int())
	}
}

// simLine is what a process that simulates says of a seed, begun or done.
type simLine struct {
	Seed      uint64
	Done      bool
	Virtual   time.Duration
	Counts    counts
	Violation string
}

const simPrefix = "simulated "

func env(t *testing.T, name string, otherwise float64) float64 {
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	v, err := strconv.ParseFloat(s, 64)
	require.NoError(t, err, name)
	return v
}

// TestSim is make sim. It runs seeds in a process for each core, from SIM_FROM
// on, until SIM_HOURS virtual hours are done or SIM_FOR seconds have passed; or
// one, SIM_SEED, SIM_TRIES times: a seed repeats the trouble, and what goroutines
// make of it is theirs.
func TestSim(t *testing.T) {
	hours, seconds := env(t, "SIM_HOURS", 0), env(t, "SIM_FOR", 0)
	one := os.Getenv("SIM_SEED")
	isOne := one != ""
	if hours == 0 && seconds == 0 && !isOne {
		t.Skip("SIM_HOURS, SIM_FOR or SIM_SEED says how much; see make sim")
	}
	from, step, tries := uint64(env(t, "SIM_FROM", 1)), uint64(1), -1
	if isOne {
		seed, err := strconv.ParseUint(one, 10, 64)
		require.NoError(t, err)
		from, step, tries = seed, 0, int(env(t, "SIM_TRIES", 10))
	}
	if child := os.Getenv("SIM_CHILD"); child != "" {
		n, err := strconv.ParseUint(child, 10, 64)
		require.NoError(t, err)
		step *= uint64(env(t, "SIM_PROCS", 1))
		simulateMany(t, from+n*min(step, 1), step, tries)
		return
	}
	s := &simRun{t: t, begin: time.Now(), hours: hours, until: time.Duration(seconds * float64(time.Second))}
	s.run(int(env(t, "SIM_PROCS", float64(runtime.NumCPU()))))
}

// simulateMany is a process of make sim: seed after seed, until its parent ends it.
func simulateMany(t *testing.T, seed, step uint64, tries int) {
	out := json.NewEncoder(prefixed{os.Stdout})
	for ; tries != 0; seed, tries = seed+step, tries-1 {
		require.NoError(t, out.Encode(simLine{Seed: seed}))
		res := simulate(t, simOptions{seed: seed, length: simLength})
		line := simLine{Seed: seed, Done: true, Virtual: res.virtual, Counts: res.counts}
		if res.found != nil {
			line.Violation = res.report(seed)
		}
		require.NoError(t, out.Encode(line))
	}
}

type prefixed struct{ f *os.File }

func (p prefixed) Write(b []byte) (int, error) {
	if _, err := p.f.Write(append([]byte(simPrefix), b...)); err != nil {
		return 0, err
	}
	return len(b), nil
}

// simRun is the parent of the processes of make sim.
type simRun struct {
	t     *testing.T
	begin time.Time
	hours float64
	until time.Duration

	mu      sync.Mutex
	virtual time.Duration
	seeds   int
	counts  counts
	bad     string // the first violation, or a process that broke down
	kids    []*exec.Cmd
	over    bool
}

func (s *simRun) run(procs int) {
	var wg sync.WaitGroup
	for i := range procs {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestSim$", "-test.timeout", "0")
		cmd.Env = append(os.Environ(), fmt.Sprint("SIM_CHILD=", i), fmt.Sprint("SIM_PROCS=", procs), "GOMAXPROCS=1", "GOGC=400")
		var stderr tailBuffer
		cmd.Stderr = &stderr
		stdout, err := cmd.StdoutPipe()
		require.NoError(s.t, err)
		require.NoError(s.t, cmd.Start())
		s.mu.Lock()
		s.kids = append(s.kids, cmd)
		s.mu.Unlock()
		wg.Go(func() {
			last, rest := s.follow(bufio.NewReaderSize(stdout, 1<<20))
			if err := cmd.Wait(); err != nil {
				s.end(fmt.Sprintf("%s\n%s\nseed %d: the process that ran it: %v", rest, stderr.String(), last, err))
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	ticks := time.NewTicker(5 * time.Second)
	defer ticks.Stop()
	for running := true; running; {
		select {
		case <-done:
			running = false
		case <-ticks.C:
			fmt.Fprintln(os.Stderr, s.progress())
		}
		s.mu.Lock()
		enough := s.hours > 0 && s.virtual.Hours() >= s.hours || s.until > 0 && time.Since(s.begin) >= s.until
		s.mu.Unlock()
		if enough {
			s.end("")
		}
	}
	s.mu.Lock()
	bad, violations := s.bad, 0
	s.mu.Unlock()
	if bad != "" {
		violations = 1
		fmt.Fprintln(os.Stderr, bad)
	}
	p := s.progress()
	fmt.Fprintf(os.Stderr, "%s\nsim: %.1f virtual hours, %d seeds, %d violations (%.1f virtual hours/minute)\n",
		p, s.virtual.Hours(), s.seeds, violations, s.virtual.Hours()/time.Since(s.begin).Minutes())
	if bad != "" {
		s.t.Fail()
	}
}

// follow reads what a process says, to its end.
func (s *simRun) follow(r *bufio.Reader) (last uint64, rest string) {
	var other tailBuffer
	for {
		text, err := r.ReadString('\n')
		var line simLine
		if js, ok := strings.CutPrefix(text, simPrefix); ok && json.Unmarshal([]byte(js), &line) == nil {
			last = line.Seed
			s.mu.Lock()
			if line.Done {
				s.seeds++
				s.virtual += line.Virtual
				s.counts.add(line.Counts)
			}
			s.mu.Unlock()
			if line.Violation != "" {
				s.end(fmt.Sprintf("%s\nagain: make sim SIM_SEED=%d", line.Violation, line.Seed))
			}
		} else if text != "" {
			_, _ = other.Write([]byte(text))
		}
		if err != nil {
			return last, other.String()
		}
	}
}

// end stops every process; bad is why, "" when it is enough.
func (s *simRun) end(bad string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return
	}
	s.over, s.bad = true, bad
	for _, k := range s.kids {
		_ = k.Process.Kill()
	}
}

func (s *simRun) progress() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprintf("%4.0f s: %.2f virtual hours of %d seeds, %.1f a minute; %s", time.Since(s.begin).Seconds(),
		s.virtual.Hours(), s.seeds, s.virtual.Hours()/time.Since(s.begin).Minutes(), s.counts)
}

// tailBuffer keeps the beginning and the end of what is written to it.
type tailBuffer struct {
	mu sync.Mutex
	b  []byte
}

func (w *tailBuffer) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.b = append(w.b, b...)
	if len(w.b) > 1<<16 {
		w.b = append(w.b[:1<<13], w.b[len(w.b)-1<<15:]...)
	}
	return len(b), nil
}

func (w *tailBuffer) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(bytes.TrimSpace(w.b))
}
