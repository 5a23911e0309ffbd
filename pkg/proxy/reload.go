package proxy

import (
	"github.com/hashicorp/go-hclog"

	"github.com/logd-io/logd/config"
	"github.com/logd-io/logd/pkg/internal/reload"
	"github.com/logd-io/logd/pkg/internal/throttle"
)

// Reload takes what a running proxy takes from the configuration that load reads, and
// reads the certificates again: all of it, or nothing and the reason. It answers the
// settings that have changed; the log has what came of it too.
func (p *Proxy) Reload(load func() (config.Proxy, error)) (changed []string, err error) {
	p.reloading.Lock()
	defer p.reloading.Unlock()
	parts := make([]reload.Part, 0, len(p.certs)+1)
	for _, w := range p.certs {
		parts = append(parts, w)
	}
	err = p.reloader.All(append(parts, reload.Func(func() (func(), error) {
		next, err := load()
		if err != nil {
			return nil, err
		}
		live, restart := p.live.Changed(next)
		if len(restart) > 0 {
			return nil, &config.RestartError{Settings: restart}
		}
		return func() {
			p.live, changed = next, live
			p.log.SetLevel(hclog.LevelFromString(next.LogLevel))
			p.bounds.calls.rates.Set(rates(next.Limits))
		}, nil
	}))...)
	return changed, err
}

func rates(c config.ProxyLimits) throttle.Rates {
	return throttle.Rates{Produce: int64(c.ProduceRate), Consume: int64(c.ConsumeRate), Requests: c.RequestRate}
}
