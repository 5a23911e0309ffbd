// Package reload changes a running process: everything that was asked of it, or
// nothing.
//
// Invariant: of parts that are reloaded together, either all use what they found or
// none does. What each may change on its own in between (certificates do, as their
// files change) is its own affair.
//
// Compositions (agent, proxy) call it on SIGHUP, and when they are asked to reload. Internal.
package reload

import (
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
)

// Part is something that can be loaded anew. Prepare does all that can fail, and use,
// which is called at once or never, the rest.
type Part interface {
	Prepare() (use func(), err error)
}

// Func is a Part.
type Func func() (use func(), err error)

// Prepare calls f.
func (f Func) Prepare() (use func(), err error) { return f() }

// Reloader reloads, and keeps what came of it. It is not safe for concurrent use.
type Reloader struct {
	logger hclog.Logger
	ok, at prometheus.Gauge
}

// New registers the metrics of a program ("logd") with reg.
func New(program string, logger hclog.Logger, reg prometheus.Registerer) (*Reloader, error) {
	r := &Reloader{
		logger: logger,
		ok: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: program, Subsystem: "config", Name: "last_reload_successful",
			Help: "1 when the last order to reload was carried out, or there was none; 0 when it changed nothing.",
		}),
		at: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: program, Subsystem: "config", Name: "last_reload_success_timestamp_seconds",
			Help: "When a configuration was last taken, at the start or on an order, in seconds since 1970.",
		}),
	}
	for _, g := range []prometheus.Gauge{r.ok, r.at} {
		if err := reg.Register(g); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	r.took()
	return r, nil
}

func (r *Reloader) took() {
	r.ok.Set(1)
	r.at.SetToCurrentTime()
}

// All reloads the parts together. The log has what came of it.
func (r *Reloader) All(parts ...Part) error {
	began := time.Now()
	var uses []func()
	var errs []error
	for _, p := range parts {
		use, err := p.Prepare()
		uses, errs = append(uses, use), append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		r.ok.Set(0)
		r.logger.Error("reloading has changed nothing", "err", err)
		return err
	}
	for _, use := range uses {
		use()
	}
	r.took()
	r.logger.Info("reloaded", "took", time.Since(began))
	return nil
}
