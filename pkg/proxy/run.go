package proxy

import (
	"context"
	"errors"
	"fmt"
	"time"

	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/internal/events"
)

// lastWords is how long streams that were told to end may take to say so.
const lastWords = 2 * time.Second

// part is a goroutine of Run.
type part struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when it has ended
}

// stop ends the part and waits for it.
func (p part) stop() { p.cancel(); <-p.done }

// Run serves until ctx ends or Drain is called, then drains and answers nil. When
// a part of the proxy fails it drains too, and answers why. It is called once.
func (p *Proxy) Run(ctx context.Context) error {
	if p.begun.Swap(true) {
		return errors.New("proxy: Run was called before")
	}
	defer close(p.over)

	// What serves a call must outlive ctx, whose end is only the wish to stop.
	base := context.WithoutCancel(ctx)
	failed := make(chan error, 8+len(p.certs)) // one from each part
	start := func(what string, run func(context.Context) error) part {
		ctx, cancel := context.WithCancel(base)
		w := part{cancel: cancel, done: make(chan struct{})}
		go func() { // ended and waited for by stop
			defer close(w.done)
			if err := run(ctx); err != nil && ctx.Err() == nil {
				failed <- fmt.Errorf("%s: %w", what, err)
			}
		}()
		return w
	}
	none := part{cancel: func() {}, done: make(chan struct{})}
	close(none.done)

	gossip := none
	if p.gossip != nil {
		gossip = start("gossip", p.gossip.Run)
	}
	admin := start("admin", p.admin.Run)
	deciding := start("control", p.control.Run)
	reporting := start("health", p.reportHealth)
	noting := start("cluster", p.noteCluster)
	looking := start("limits", p.bounds.run)
	observing := start("observer", p.observer.run)
	var watching []part
	for _, w := range p.certs {
		watching = append(watching, start("certificates", w.Run))
	}
	serving := start("listener", func(context.Context) error { return p.server.Serve(accepted{p.lis, p.bounds.fresh}) })
	p.log.Info("logproxy is running", "id", p.id, "listener", p.addrs.Listener, "gossip", p.addrs.Gossip, "admin", p.addrs.Admin)

	var err error
	select {
	case <-ctx.Done():
	case <-p.drain:
	case <-p.abort:
	case err = <-failed:
		p.log.Error("a part of the proxy has failed; draining", "err", err)
	}

	// Outside in: the word that no new calls should come, then none, then those there are,
	// then what they went through, then the word to others that we are gone. The admin
	// server sees it all.
	begin := time.Now()
	p.drainServer(serving.done)
	serving.stop()
	reporting.stop()
	noting.stop()
	looking.stop()
	for _, w := range watching {
		w.stop()
	}
	errs := []error{err, p.forward.Close()}
	deciding.stop()
	errs = append(errs, p.pool.Close())
	if p.gossip != nil && !p.aborted() {
		if err := p.gossip.Leave(); err != nil {
			p.log.Warn("gossip could not be told that we leave", "err", err)
		}
	}
	gossip.stop()
	if p.gossip != nil {
		errs = append(errs, p.gossip.Close())
	}
	observing.stop()
	_ = p.page.Close() // it has nothing to fail
	admin.stop()
	p.log.Info("logproxy has stopped", "took", time.Since(begin).Round(time.Millisecond))
	return errors.Join(errs...)
}

// reportHealth keeps the health service at what the table allows.
func (p *Proxy) reportHealth(ctx context.Context) error {
	for {
		t := p.holder.Load()
		s := healthv1.HealthCheckResponse_NOT_SERVING
		if ready(t) {
			s = healthv1.HealthCheckResponse_SERVING
		}
		p.health.SetServingStatus("", s) // of no effect once draining
		p.health.SetServingStatus(logv1.Log_ServiceDesc.ServiceName, s)
		select {
		case <-t.Superseded():
		case <-ctx.Done():
			return nil
		}
	}
}

// drainServer stops the server in the order of the package's invariant. Closed, deaf
// tells that it accepts nothing more anyway.
func (p *Proxy) drainServer(deaf <-chan struct{}) {
	p.draining.Store(true)
	p.log.Info("draining", "drain_delay", p.cfg.DrainDelay, "drain_timeout", p.cfg.DrainTimeout)
	p.health.Shutdown()
	if p.cfg.DrainDelay > 0 {
		p.events.Addf("drain", events.Warning, "", "the proxy drains: new calls are taken for %v, for those who do not know yet", p.cfg.DrainDelay)
		t := time.NewTimer(p.cfg.DrainDelay)
		select {
		case <-t.C:
		case <-deaf:
		case <-p.abort:
		}
		t.Stop()
	}
	p.events.Addf("drain", events.Warning, "", "the proxy drains: new calls are refused, open ones have %v", p.cfg.DrainTimeout)
	p.ends.endWatchers(errDraining)

	done := make(chan struct{})
	go func() { // GracefulStop closes the listener, sends GOAWAY and waits for all calls; we wait for it
		defer close(done)
		p.server.GracefulStop()
	}()
	waited := func(d time.Duration) bool {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-done:
			return true
		case <-t.C:
		case <-p.abort:
		}
		return false
	}
	if !waited(p.cfg.DrainTimeout) {
		p.forward.EndStreams()
		p.ends.endPassed(errDraining)
		waited(lastWords)
	}
	p.server.Stop()
	<-done
	p.bounds.unread.wait()
}

func (p *Proxy) aborted() bool {
	select {
	case <-p.abort:
		return true
	default:
		return false
	}
}

// Drain makes Run drain and return, and waits for that or for ctx. Without Run
// it waits for ctx.
func (p *Proxy) Drain(ctx context.Context) error {
	p.beginDrain()
	select {
	case <-p.over:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (p *Proxy) beginDrain() { p.drainOnce.Do(func() { close(p.drain) }) }

// Close releases everything. If Run is under way it ends at once, without
// draining and without leaving gossip, as if the process had died; Close waits
// for it.
func (p *Proxy) Close() error {
	p.closeOnce.Do(func() {
		close(p.abort)
		if p.begun.Load() {
			<-p.over
		}
		p.closeErr = p.release()
	})
	return p.closeErr
}

// release closes what Open opened, in reverse; what Run has closed stays closed.
func (p *Proxy) release() error {
	var errs []error
	if p.admin != nil {
		errs = append(errs, p.admin.Close())
	}
	if p.server != nil {
		p.server.Stop()
		p.bounds.unread.wait()
	}
	if p.forward != nil {
		errs = append(errs, p.forward.Close())
	}
	if p.pool != nil {
		errs = append(errs, p.pool.Close())
	}
	if p.gossip != nil {
		errs = append(errs, p.gossip.Close())
	}
	if p.lis != nil && !p.begun.Load() { // else the server has closed it
		errs = append(errs, p.lis.Close())
	}
	errs = append(errs, p.tracing.Close())
	return errors.Join(errs...)
}
