package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/logd-io/logd/config"
	"github.com/logd-io/logd/pkg/discovery/zk"
	"github.com/logd-io/logd/pkg/registrar"
)

// readyEvery is how often readiness is looked at of which no change tells.
const readyEvery = time.Second

// openRegister makes what registers this node elsewhere, if that is configured.
func (a *Agent) openRegister() error {
	failures := prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: "logd", Name: "registration_failures_total", Help: "Times the node could not be registered in ZooKeeper, or lost its session.",
	})
	registered := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "logd", Name: "registered", Help: "1 while the node is a member in ZooKeeper; 0 without a register block, too.",
	}, func() float64 {
		if a.member() == "" {
			return 0
		}
		return 1
	})
	for _, m := range []prometheus.Collector{failures, registered} {
		if err := a.deps.Registry.Register(m); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	for _, c := range a.cfg.Register { // Validate has seen to it that there is one, of ZooKeeper
		address, err := a.advertised(a.addrs.RPC)
		if err != nil {
			return err
		}
		place := serverset(c)
		if err := place.Check(); err != nil {
			return fmt.Errorf("register.%s: %w", c.Kind, err)
		}
		a.enrolled, err = registrar.New(registrar.Config{
			Dial: func(ctx context.Context) (registrar.Session, error) { return zk.Dial(ctx, place) },
			Path: c.Path, Address: address,
			Failed: failures.Inc, Logger: a.logger.Named("register"), Events: a.events,
		})
		if err != nil {
			return fmt.Errorf("register.%s: %w", c.Kind, err)
		}
	}
	return nil
}

func serverset(r config.Register) zk.Config {
	return zk.Config{
		Servers: r.Servers, Path: r.Path, SessionTimeout: r.SessionTimeout,
		User: r.User, Password: r.Password, PasswordFile: r.PasswordFile,
		CAFile: r.TLS.CAFile, CertFile: r.TLS.CertFile, KeyFile: r.TLS.KeyFile,
	}
}

// member is where this node is registered; empty where it is not.
func (a *Agent) member() string {
	if a.enrolled == nil {
		return ""
	}
	return a.enrolled.Member()
}

// tellReady tells the registrar whether this node can serve.
func (a *Agent) tellReady(ctx context.Context) error {
	tick := time.NewTicker(readyEvery)
	defer tick.Stop()
	for {
		changed := a.replica.Changes()
		a.enrolled.SetReady(len(a.NotReady()) == 0)
		select {
		case <-changed:
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
