package certwatch

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/logd-io/logd/pkg/internal/events"
	"github.com/logd-io/logd/pkg/tlsconf"
)

const (
	lookEvery = 2 * time.Second
	warnEvery = 24 * time.Hour
)

// Config is what New needs.
type Config struct {
	Source *tlsconf.Source
	// Setting is where the configuration names the files: "tls", "upstream.tls". It
	// tells the watchers of one process apart, in logs and metrics.
	Setting string

	Logger     hclog.Logger          // nil: quiet
	Registerer prometheus.Registerer // nil: not exported
	Events     *events.Log           // what has happened, for people; may be nil
}

// Watcher reloads one source.
type Watcher struct {
	src     *tlsconf.Source
	setting string
	log     hclog.Logger
	events  *events.Log
	metrics *metrics

	mu     sync.Mutex // for all below
	tried  digest     // the files at the last attempt to load them
	seen   digest     // the files at the last look
	failed bool       // the last attempt did
	warned time.Time  // when it was last said that the certificates end soon
}

// New makes a watcher of a source that has just been loaded.
func New(cfg Config) (*Watcher, error) {
	w := &Watcher{src: cfg.Source, setting: cfg.Setting, log: cfg.Logger, events: cfg.Events}
	if w.log == nil {
		w.log = hclog.NewNullLogger()
	}
	var err error
	if w.metrics, err = newMetrics(cfg.Setting, cfg.Registerer); err != nil {
		return nil, err
	}
	// The files may have changed since the source was loaded.
	w.tried = look(w.src.Files())
	w.seen = w.tried
	w.failed = w.src.Reload() != nil // Run tries again
	w.metrics.show(w.src.Certificates())
	return w, nil
}

// Prepare loads the files, changed or not, for use to put them in use. What came of
// it is logged.
func (w *Watcher) Prepare() (use func(), err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	files := look(w.src.Files())
	take, err := w.src.Prepare()
	if err != nil {
		w.refuse(files, err, true)
		return nil, err
	}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.take(files, take)
	}, nil
}

// Run reloads until ctx ends, and then returns nil. It is called once.
func (w *Watcher) Run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	w.mu.Lock()
	w.warn()
	w.mu.Unlock()
	for {
		select {
		case <-tick.C:
			w.mu.Lock()
			w.look()
			w.warn()
			w.mu.Unlock()
		case <-ctx.Done():
			return nil
		}
	}
}

// look loads files that have changed, once they have been the same twice: who
// replaces them one by one is given the time to. A set that did not load is tried
// again, because what was wrong may be the clock.
func (w *Watcher) look() {
	now := look(w.src.Files())
	settled := now == w.seen
	w.seen = now
	switch {
	case !settled:
	case now != w.tried:
		w.load(now, true)
	case w.failed:
		w.load(now, false)
	}
}

// load loads the files, and says and counts it when it fails if told to.
func (w *Watcher) load(files digest, tell bool) {
	use, err := w.src.Prepare()
	if err != nil {
		w.refuse(files, err, tell)
		return
	}
	w.take(files, use)
}

func (w *Watcher) refuse(files digest, err error, tell bool) {
	w.tried, w.failed = files, true
	if tell {
		w.metrics.reloaded("failed")
		w.log.Error("certificates kept as they were", "setting", w.setting, "err", err)
		w.events.Addf("certificates", events.Error, "", "%s: the new certificates cannot be used, the old ones stay: %v", w.setting, err)
	}
}

func (w *Watcher) take(files digest, use func()) {
	use()
	w.tried, w.failed = files, false
	w.metrics.reloaded("loaded")
	leaf, ca := w.src.Certificates()
	w.metrics.show(leaf, ca)
	w.log.Info("certificates reloaded", "setting", w.setting, "identity", w.src.Identity(),
		"not_after", leaf.NotAfter.UTC().Format(time.RFC3339), "ca_not_after", ca.NotAfter.UTC().Format(time.RFC3339))
	w.events.Addf("certificates", events.Info, "", "%s: certificates were read again; they end on %s", w.setting, leaf.NotAfter.UTC().Format(time.DateOnly))
	w.warned = time.Time{}
	w.warn()
}

// warn says, once a day, that a certificate ends soon.
func (w *Watcher) warn() {
	now := time.Now()
	if now.Sub(w.warned) < warnEvery {
		return
	}
	leaf, ca := w.src.Certificates()
	files := w.src.Files()
	if tlsconf.EndsSoon(leaf, now) {
		w.warned = now
		w.log.Warn("the certificate ends soon; replace the file", "setting", w.setting,
			"file", files.Cert, "not_after", leaf.NotAfter.UTC().Format(time.RFC3339))
		w.events.Addf("certificate_ends", events.Warning, "", "%s: the certificate ends on %s", w.setting, leaf.NotAfter.UTC().Format(time.DateTime))
	}
	if tlsconf.EndsSoon(ca, now) {
		w.warned = now
		w.log.Warn("the CA ends soon, and all its certificates with it; rotate it", "setting", w.setting,
			"file", files.CA, "not_after", ca.NotAfter.UTC().Format(time.RFC3339))
		w.events.Addf("ca_ends", events.Warning, "", "%s: the CA, and all its certificates with it, ends on %s", w.setting, ca.NotAfter.UTC().Format(time.DateTime))
	}
}

// digest is the content of a set of files.
type digest [sha256.Size]byte

// look reads files. One that cannot be read is told from every one that can. It
// reads no more of each than a bundle of a thousand CAs.
func look(files tlsconf.Files) (sum digest) {
	const most = 4 << 20
	h := sha256.New()
	for _, path := range []string{files.CA, files.Cert, files.Key} {
		fmt.Fprintf(h, "%s\x00", path)
		f, err := os.Open(path)
		if err != nil {
			fmt.Fprintf(h, "error %v\x00", err)
			continue
		}
		n, err := io.Copy(h, io.LimitReader(f, most))
		_ = f.Close() // it was only read
		fmt.Fprintf(h, "\x00%d %v\x00", n, err)
	}
	h.Sum(sum[:0])
	return sum
}
