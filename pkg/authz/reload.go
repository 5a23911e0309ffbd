package authz

import (
	"context"
	"errors"
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
	}
	a.inForce.Store(first)
	return a, nil
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
			_ = a.look(false) // it has been told
		case <-ctx.Done():
			return nil
		}
	}
}

// Reload puts the files in force as they are now, or says why they stay as they
// were. Without files there is nothing to do.
func (a *Authorizer) Reload() error {
	if a.files.Policy == "" {
		return nil
	}
	return a.look(true)
}

// look compares the files with what is in force. Unless it is an order, files that
// are other than at the last look are left for the next, and what has failed is
// tried and told once.
func (a *Authorizer) look(order bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	src, err := a.files.read()
	settled := src == a.seen
	a.seen = src
	switch {
	case src == a.loaded && !order:
		a.failed = nil
		a.metrics.failing.Set(0)
		return nil
	case !order && (!settled || a.failed != nil && src == *a.failed):
		return nil
	}
	var p *policy
	if err == nil {
		p, err = a.compile(src)
	}
	if err != nil {
		a.failed = &src
		a.metrics.failing.Set(1)
		a.metrics.reloads.WithLabelValues("failed").Inc()
		a.logger.Error("the acl files do not load; the rules stay as they were", "err", err)
		var fe *FileError
		if errors.As(err, &fe) {
			return fe
		}
		return err
	}
	a.loaded, a.failed = src, nil
	a.metrics.failing.Set(0)
	a.metrics.reloads.WithLabelValues("ok").Inc()
	// First the new rules, then the word that the old are over: who hears it finds
	// the new ones, and who has missed it finds the channel closed.
	old := a.inForce.Swap(&version{policy: p, superseded: make(chan struct{})})
	close(old.superseded)
	a.logger.Info("new acl files are in force", "policy", a.files.Policy, "model", a.files.Model)
	return nil
}
