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
	"os"
	"path/filepath"
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
		Examples: "debug\ndebug -for 2m -every 10s -o incident.tar.gz",
		Setup: func(fs *flag.FlagSet, env Env) Action {
			admin := adminFlags(fs, env)
			format := FormatFlag(fs)
			d := &debugging{env: env, about: gathered{Program: program, Version: version}}
			fs.DurationVar(&d.length, "for", 30*time.Second, "`duration` to watch it. Default: 30s")
			fs.DurationVar(&d.every, "every", 5*time.Second, "`duration` between two looks at its metrics. Default: 5s")
			fs.StringVar(&d.file, "o", "", "`file` to make. Default: "+program+"-debug-<time>.tar.gz, here")
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
	dir           string // what is gathered

	mu    sync.Mutex
	about gathered // Missing is guarded by mu
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

func (d *debugging) run(ctx context.Context, format Format) (err error) {
	// Of whom nobody hears anything, or nobody may, there is no archive.
	if err := d.a.Status(ctx, new(json.RawMessage)); err != nil {
		return err
	}
	d.about.Began, d.about.Address, d.about.Missing = time.Now().UTC(), d.a.address, []missing{}
	name := d.about.Program + "-debug-" + d.about.Began.Format("20060102T150405Z")
	if d.file == "" {
		d.file = name + ".tar.gz"
	}
	f, err := os.OpenFile(d.file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = errors.Join(err, os.Remove(d.file))
		}
	}()
	tmp, err := os.MkdirTemp(filepath.Dir(d.file), ".debug-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	d.dir = filepath.Join(tmp, name)
	if err := os.Mkdir(d.dir, 0o700); err != nil {
		return err
	}

	p := ShowProgress(d.env, func() string {
		return fmt.Sprintf("Watching %s for %v of %v. Ctrl-C ends it early.", d.a.address, time.Since(d.about.Began).Round(time.Second), d.length)
	})
	d.gather(ctx)
	p.Stop()

	d.about.Ended = time.Now().UTC()
	var text bytes.Buffer
	if err := WriteJSON(&text, d.about); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(d.dir, "about.json"), text.Bytes(), 0o600); err != nil {
		return err
	}
	if err := pack(f, tmp); err != nil {
		return err
	}
	d.about.File = d.file
	return format.Answer(d.env.Stdout, d.about, d.about.text())
}

func (g gathered) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s has what %s said in %v.\n", g.File, g.Address, g.Ended.Sub(g.Began).Round(time.Second))
	for _, m := range g.Missing {
		fmt.Fprintf(&b, "missing: %s: %s\n", m.File, m.Why)
	}
	return b.String()
}

// pack writes what is in dir to w.
func pack(w io.Writer, dir string) error {
	z := gzip.NewWriter(w)
	t := tar.NewWriter(z)
	return errors.Join(t.AddFS(os.DirFS(dir)), t.Close(), z.Close())
}

// gather takes all there is for as long as was asked for, or until ctx ends; what is
// taken at the end is taken then too.
func (d *debugging) gather(ctx context.Context) {
	whole := context.WithoutCancel(ctx) // of a single question
	ask := func(file, path string) {
		d.save(file, func(w io.Writer) error { return d.a.copy(whole, w, path, d.a.client.Timeout) })
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
		path := fmt.Sprint("/debug/pprof/profile?seconds=", max(1, int(d.length/time.Second)))
		d.save("cpu.pprof", func(w io.Writer) error { return d.a.copy(ctx, w, path, d.length+d.a.client.Timeout) })
	})
	tick := time.NewTicker(d.every)
	defer tick.Stop()
	for after := time.Duration(0); watch.Err() == nil; after += d.every {
		ask(fmt.Sprintf("metrics-%v.prom", after), "/metrics")
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
const maxDebugFile = 256 << 20

// save makes a file of what write writes. One that stays empty is none.
func (d *debugging) save(name string, write func(io.Writer) error) {
	err := func() (err error) {
		path := filepath.Join(d.dir, name)
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		w := &bounded{w: f, left: maxDebugFile}
		err = errors.Join(write(w), f.Close())
		if err != nil && w.left == maxDebugFile {
			err = errors.Join(err, os.Remove(path))
		}
		return err
	}()
	if err == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.about.Missing = append(d.about.Missing, missing{name, err.Error()})
}

// bounded takes so many bytes and no more.
type bounded struct {
	w    io.Writer
	left int
}

var errBounded = fmt.Errorf("cut after %d MiB", maxDebugFile>>20)

func (b *bounded) Write(p []byte) (int, error) {
	if len(p) > b.left {
		return 0, errBounded
	}
	b.left -= len(p)
	return b.w.Write(p)
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
func (a *Admin) copy(ctx context.Context, w io.Writer, path string, within time.Duration) error {
	client := a.client
	client.Timeout = within
	res, err := a.ask(ctx, &client, http.MethodGet, path)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	switch {
	case res.StatusCode == http.StatusOK, path == "/readyz" && res.StatusCode == http.StatusServiceUnavailable:
		_, err := io.Copy(w, res.Body)
		return err
	case res.StatusCode == http.StatusNotFound && strings.HasPrefix(path, "/debug/pprof/"):
		return errors.New("it is not served without admin { pprof = true }")
	}
	return a.unexpected(res.StatusCode)
}
