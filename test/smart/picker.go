package smart

import (
	"path"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/base"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/status"
)

const policy = "smart_log"

// The library finds balancers by name, one for all of a process. This one has no
// state: each connection's pickers are its own.
var _ = register()

func register() bool {
	balancer.Register(base.NewBalancerBuilder(policy, pickers{}, base.Config{}))
	return true
}

type pickers struct{}

func (pickers) Build(info base.PickerBuildInfo) balancer.Picker {
	p := &picker{}
	for sc, of := range info.ReadySCs {
		a, _ := of.Address.Attributes.Value(aboutKey{}).(about)
		p.asker = a.refuse
		if a.leader {
			p.leader = sc
		} else {
			p.followers = append(p.followers, sc)
		}
	}
	return p
}

// picker chooses among the servers that are connected.
type picker struct {
	leader    balancer.SubConn // nil: none, or not connected
	followers []balancer.SubConn
	turn      atomic.Uint64
	asker     *asker // nil: a refusal is nothing to it
}

func (p *picker) Pick(info balancer.PickInfo) (balancer.PickResult, error) {
	sc := p.leader
	produces := strings.HasPrefix(path.Base(info.FullMethodName), "Produce")
	consumes := strings.HasPrefix(path.Base(info.FullMethodName), "Consume")
	if n := uint64(len(p.followers)); n > 0 && (consumes || sc == nil && !produces) {
		sc = p.followers[p.turn.Add(1)%n]
	}
	if sc == nil {
		return balancer.PickResult{}, balancer.ErrNoSubConnAvailable // the call waits for the next picker
	}
	r := balancer.PickResult{SubConn: sc}
	if p.asker != nil {
		r.Done = func(d balancer.DoneInfo) {
			if status.Code(d.Err) == codes.FailedPrecondition {
				p.asker.ResolveNow(resolver.ResolveNowOptions{})
			}
		}
	}
	return r, nil
}
