package authz

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
)

// Options are what Open takes.
type Options struct {
	Files      Files                 // without a policy roles decide alone
	Logger     hclog.Logger          // nil: quiet
	Registerer prometheus.Registerer // nil: no metrics
}

// Open reads the files and puts them in force.
func Open(o Options) (*Authorizer, error) {
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	a := &Authorizer{files: o.Files, logger: o.Logger, metrics: newMetrics(o.Registerer)}
	first := &version{superseded: make(chan struct{})}
	if o.Files.Policy == "" {
		a.logger.Warn("there is no acl block: every certificate of role client may produce and consume, every one of role admin may do everything")
	} else {
		src, err := o.Files.read()
		if err != nil {
			return nil, err
		}
		if first.policy, err = a.compile(src); err != nil {
			return nil, err
		}
		a.loaded, a.seen = src, src
		a.tellOpen()
	}
	a.inForce.Store(first)
	return a, nil
}

// tellOpen warns of files that others than their owner may write: whoever can, decides
// who may do what.
func (a *Authorizer) tellOpen() {
	for _, path := range []string{a.files.Policy, a.files.Model} {
		if info, err := os.Stat(path); path != "" && err == nil && info.Mode().Perm()&0o022 != 0 {
			a.logger.Warn("others than its owner may write an acl file; chmod go-w it", "file", path, "mode", info.Mode().Perm())
		}
	}
}

func (a *Authorizer) compile(src sources) (*policy, error) {
	p, err := a.files.compile(src)
	if err != nil {
		return nil, err
	}
	p.failed = func(err error) {
		a.metrics.errors.Inc()
		a.logger.Error("the acl cannot decide, so it refuses", "err", err)
	}
	return p, nil
}

// lookEvery is how often the files are read. Reading them is what works everywhere,
// also where they are links that are turned, as Kubernetes mounts them; and it
// costs nothing that shows.
const lookEvery = time.Second

// Run puts files that change in force, until ctx ends. What is being written is
// waited for: two looks have to find the same.
func (a *Authorizer) Run(ctx context.Context) error {
	if a.files.Policy == "" {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			a.look()
		case <-ctx.Done():
			return nil
		}
	}
}

// Reload puts the files in force as they are now, or says why they stay as they
// were. Without files there is nothing to do.
func (a *Authorizer) Reload() error {
	use, err := a.Prepare()
	if err == nil {
		use()
	}
	return err
}

// Prepare is the half of Reload that can fail, which the log has then: use does the
// rest.
func (a *Authorizer) Prepare() (use func(), err error) {
	if a.files.Policy == "" {
		return func() {}, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	src, p, err := a.read()
	a.seen = src
	if err != nil {
		return nil, a.refuse(src, err)
	}
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.use(src, p)
	}, nil
}

// look compares the files with what is in force. Files that are other than at the last
// look are left for the next, and what has failed is tried and told once.
func (a *Authorizer) look() {
	a.mu.Lock()
	defer a.mu.Unlock()
	src, err := a.files.read()
	settled := src == a.seen
	a.seen = src
	switch {
	case src == a.loaded:
		a.failed = nil
		a.metrics.failing.Set(0)
		return
	case !settled || a.failed != nil && src == *a.failed:
		return
	}
	var p *policy
	if err == nil {
		p, err = a.compile(src)
	}
	if err != nil {
		_ = a.refuse(src, err) // it has been told
		return
	}
	a.use(src, p)
}

func (a *Authorizer) read() (sources, *policy, error) {
	src, err := a.files.read()
	if err != nil {
		return src, nil, err
	}
	p, err := a.compile(src)
	return src, p, err
}

func (a *Authorizer) refuse(src sources, err error) error {
	a.failed = &src
	a.metrics.failing.Set(1)
	a.metrics.reloaded("failed")
	a.logger.Error("the acl files do not load; the rules stay as they were", "err", err)
	var fe *FileError
	if errors.As(err, &fe) {
		return fe
	}
	return err
}

func (a *Authorizer) use(src sources, p *policy) {
	a.loaded, a.failed = src, nil
	a.metrics.failing.Set(0)
	a.metrics.reloaded("ok")
	// First the new rules, then the word that the old are over: who hears it finds
	// the new ones, and who has missed it finds the channel closed.
	old := a.inForce.Swap(&version{policy: p, superseded: make(chan struct{})})
	close(old.superseded)
	a.tellOpen()
	a.logger.Info("new acl files are in force", "policy", a.files.Policy, "model", a.files.Model)
}
