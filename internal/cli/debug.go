package cli

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync"
	"time"
)

// DebugCommand gathers what a process says of itself into one archive. program and
// version are the command's, what is the process: "node", of which adminFlags give the
// admin server.
func DebugCommand(program, version, what string, adminFlags func(*flag.FlagSet, Env) *AdminConnect) Command {
	return Command{
		Name:     "debug",
		Synopsis: "Gather what a " + what + " says of itself",
		Long: `Watches a running ` + what + ` for a while and puts what it says of itself into one
archive, for whoever is to find out what is wrong with it:

  about.json         of what, when, by which version, and what is missing, and why
  readyz.txt         whether it can serve, or why not
  metrics-0s.prom    its metrics, at the beginning and every so often
  events.jsonl       its recent events, and then each one with its status each second
  log.txt            its log meanwhile, at level debug
  goroutines.txt     what it does, at the end; heap.pprof: where its memory is, and
                     cpu.pprof: where its time goes. These need admin { pprof = true }.

No key, certificate or record is in it, but names are: of nodes, addresses, principals
and files. Only you may read the file. Interrupted, it holds what there was until then.
What could not be had is told, and no failure unless nothing could.`,
		Examples: "debug\ndebug -for 2m -every 10s -o - >incident.tar.gz",
		Setup: func(fs *flag.FlagSet, env Env) Action {
			admin := adminFlags(fs, env)
			format := FormatFlag(fs)
			d := &debugging{env: env, about: gathered{Program: program, Version: version}}
			fs.DurationVar(&d.length, "for", 30*time.Second, "`duration` to watch it. Default: 30s")
			fs.DurationVar(&d.every, "every", 5*time.Second, "`duration` between two looks at its metrics. Default: 5s")
			fs.StringVar(&d.file, "o", "", "`file` to make, which must not exist; - is stdout. Default: "+program+"-debug-<time>.tar.gz")
			return func(ctx context.Context, _ []string) error {
				if d.length <= 0 || d.every <= 0 {
					return Usagef("-for and -every: more than nothing")
				}
				var err error
				if d.a, err = admin.Open(); err != nil {
					return err
				}
				return d.run(ctx, *format)
			}
		},
	}
}

// debugging is one run of the command.
type debugging struct {
	env           Env
	a             *Admin
	length, every time.Duration
	file          string // the archive
	name          string // of the folder in it

	mu    sync.Mutex
	stop  func()      // ends it early
	tar   *tar.Writer // guarded by mu
	err   error       // why tar is broken; guarded by mu
	about gathered    // Missing is guarded by mu
}

// gathered is about.json, and with File the answer of the command.
type gathered struct {
	File    string    `json:"file,omitempty"`
	Program string    `json:"program"`
	Version string    `json:"version"` // of the command; the process's is in its metrics
	Address string    `json:"address"` // of the admin server
	Began   time.Time `json:"began"`
	Ended   time.Time `json:"ended"`
	Missing []missing `json:"missing"`
}

// missing is a file that could not be had, or not whole.
type missing struct {
	File string `json:"file"`
	Why  string `json:"why"`
}

func (d *debugging) run(ctx context.Context, format Format) error {
	// Of whom nobody hears anything, or nobody may, there is no archive.
	if err := d.a.Status(ctx, new(json.RawMessage)); err != nil {
		return err
	}
	d.about.Began, d.about.Address, d.about.Missing = time.Now().UTC(), d.a.address, []missing{}
	d.name = d.about.Program + "-debug-" + d.about.Began.Format("20060102T150405Z")
	if d.file == "" {
		d.file = d.name + ".tar.gz"
	}
	if err := MakeFile(d.env, d.file, func(w io.Writer) error { return d.pack(ctx, w) }); err != nil {
		return err
	}
	d.about.File = d.file
	if d.file == "-" {
		d.about.File = "stdout"
		_, err := io.WriteString(d.env.Stderr, d.about.text())
		return err
	}
	return format.Answer(d.env.Stdout, d.about, d.about.text())
}

func (d *debugging) pack(ctx context.Context, w io.Writer) error {
	z, err := gzip.NewWriterLevel(w, gzip.BestSpeed) // it may be a machine in trouble
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	d.tar, d.stop = tar.NewWriter(z), stop
	p := ShowProgress(d.env, func() string {
		return fmt.Sprintf("Watching %s for %v of %v. Ctrl-C ends it early.", d.a.address, time.Since(d.about.Began).Round(time.Second), d.length)
	})
	d.gather(ctx)
	p.Stop()
	d.about.Ended = time.Now().UTC()
	d.save("about.json", func(w io.Writer) error { return WriteJSON(w, d.about) })
	if d.err != nil {
		return d.err
	}
	return errors.Join(d.tar.Close(), z.Close())
}

func (g gathered) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s has what %s said in %v.\n", g.File, g.Address, g.Ended.Sub(g.Began).Round(time.Second))
	for _, m := range g.Missing {
		fmt.Fprintf(&b, "missing: %s: %s\n", m.File, m.Why)
	}
	return b.String()
}

// gather takes all there is for as long as was asked for, or until ctx ends; what is
// taken at the end is taken then too.
func (d *debugging) gather(ctx context.Context) {
	whole := context.WithoutCancel(ctx) // of a single question
	ask := func(file, of string) {
		d.save(file, func(w io.Writer) error { return d.a.copy(whole, w, of, d.a.client.Timeout) })
	}
	ask("readyz.txt", "/readyz")
	watch, cancel := context.WithTimeout(ctx, d.length)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		d.save("log.txt", func(w io.Writer) error { return d.a.Monitor(watch, url.Values{"log_level": {"debug"}}, w) })
	})
	wg.Go(func() { d.save("events.jsonl", func(w io.Writer) error { return d.events(watch, w) }) })
	wg.Go(func() {
		profile := fmt.Sprint("/debug/pprof/profile?seconds=", max(1, int(d.length/time.Second)))
		d.save("cpu.pprof", func(w io.Writer) error { return d.a.copy(ctx, w, profile, d.length+d.a.client.Timeout) })
	})
	tick := time.NewTicker(d.every)
	defer tick.Stop()
	for began := time.Now(); watch.Err() == nil; {
		ask(fmt.Sprintf("metrics-%v.prom", time.Since(began).Truncate(d.every)), "/metrics")
		select {
		case <-tick.C:
		case <-watch.Done():
		}
	}
	wg.Wait()
	ask("goroutines.txt", "/debug/pprof/goroutine?debug=2")
	ask("heap.pprof", "/debug/pprof/heap")
}

// maxDebugFile bounds each file that is gathered.
const maxDebugFile = 16 << 20

// save puts what write writes into the archive, as a file, unless it is nothing and
// there is a reason for that.
func (d *debugging) save(name string, write func(io.Writer) error) {
	var w bounded
	err := write(&w)
	b := w.b.Bytes()
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		d.about.Missing = append(d.about.Missing, missing{name, err.Error()})
		if len(b) == 0 {
			return
		}
	}
	if d.err == nil {
		d.err = d.tar.WriteHeader(&tar.Header{Name: path.Join(d.name, name), Mode: 0o600, Size: int64(len(b)), ModTime: time.Now()})
	}
	if d.err == nil {
		_, d.err = d.tar.Write(b)
	}
	if d.err != nil {
		d.stop()
	}
}

// bounded takes maxDebugFile. It is not its buffer, which would take all from a Reader.
type bounded struct{ b bytes.Buffer }

var errBounded = fmt.Errorf("cut after %d MiB", maxDebugFile>>20)

func (b *bounded) Write(p []byte) (int, error) {
	if b.b.Len()+len(p) > maxDebugFile {
		return 0, errBounded
	}
	return b.b.Write(p)
}

// event is a line of events.jsonl.
type event struct {
	At   time.Time       `json:"at"`   // when it came
	Kind string          `json:"kind"` // event, status, gone
	Data json.RawMessage `json:"data"`
}

func (d *debugging) events(ctx context.Context, w io.Writer) error {
	lines := json.NewEncoder(w)
	return d.a.events(ctx, "?after=0", func(kind string, data []byte) error {
		return lines.Encode(event{time.Now().UTC(), kind, data})
	})
}

// copy writes the answer to w, which is to be there within the time that is given.
func (a *Admin) copy(ctx context.Context, w io.Writer, of string, within time.Duration) error {
	client := a.client
	client.Timeout = within
	res, err := a.ask(ctx, &client, http.MethodGet, of)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	switch {
	case res.StatusCode == http.StatusOK, of == "/readyz" && res.StatusCode == http.StatusServiceUnavailable:
		_, err := io.Copy(w, res.Body)
		return err
	case res.StatusCode == http.StatusNotFound && strings.HasPrefix(of, "/debug/pprof/"):
		return errors.New("it is not served without admin { pprof = true }")
	}
	return a.unexpected(res.StatusCode)
}
