package agent

import (
	"fmt"

	"github.com/hashicorp/go-hclog"

	"github.com/logd-io/logd/config"
	"github.com/logd-io/logd/pkg/internal/events"
	"github.com/logd-io/logd/pkg/internal/reload"
	"github.com/logd-io/logd/pkg/internal/throttle"
	"github.com/logd-io/logd/pkg/replica"
)

func (a *Agent) openReload() (err error) {
	a.live = a.cfg
	a.reloader, err = reload.New("logd", a.logger, a.deps.Registry)
	return err
}

// Reload takes what a running node takes from the configuration that load reads, and
// reads the certificates and the acl's files again: all of it, or nothing and the
// reason. It answers the settings that have changed; the log has what came of it too.
func (a *Agent) Reload(load func() (config.Node, error)) (changed []string, err error) {
	a.reloading.Lock()
	defer a.reloading.Unlock()
	err = a.reloader.All(a.certs, a.authz, reload.Func(func() (func(), error) {
		next, err := load()
		if err != nil {
			return nil, err
		}
		live, restart := a.live.Changed(next)
		if len(restart) > 0 {
			return nil, &config.RestartError{Settings: restart}
		}
		return func() {
			a.live, changed = next, live
			a.logger.SetLevel(hclog.LevelFromString(next.LogLevel))
			a.retain(retain(next.Retain))
			a.server.SetRates(rates(next.Limits))
		}, nil
	}))
	return changed, err
}

// retain changes what the cluster keeps. What goes by that is gone for good, and one
// wrong letter is enough: so a node says how much it is, by its own log. It is the
// leader that acts on it; with another node first, there is time to put it right.
func (a *Agent) retain(to replica.Retain) {
	loss, err := a.replica.Loss(to)
	if err != nil {
		a.logger.Warn("what a change of retain deletes cannot be told", "node", a.id, "err", err)
	}
	if n := loss.Records(); n > 0 {
		a.logger.Warn("this change of retain deletes records", "node", a.id, "records", n, "bytes", loss.Bytes,
			"lowest", loss.From, "lowest_after", loss.To, "left", loss.Left, "age", to.Age, "size", to.Bytes)
		a.events.Add(events.Event{
			Kind: "retain", Severity: events.Warning, Node: a.id, Count: n,
			Text: fmt.Sprintf("a change of retain deletes %d records (%d bytes): the lowest offset goes from %d to %d, and %d are left",
				n, loss.Bytes, loss.From, loss.To, loss.Left),
		})
	}
	a.replica.Retain(to)
}

func retain(c config.Retain) replica.Retain {
	return replica.Retain{Age: c.Age, Bytes: int64(c.Size)}
}

func rates(c config.Limits) throttle.Rates {
	return throttle.Rates{Produce: int64(c.ProduceRate), Consume: int64(c.ConsumeRate), Requests: c.RequestRate}
}
