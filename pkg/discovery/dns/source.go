package dns

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/logd-io/logd/pkg/discovery"
)

const (
	// DefaultInterval is how often a name is looked up that is said nothing of.
	DefaultInterval = 10 * time.Second

	nodesMost  = 256             // addresses that are taken of an answer
	answerIn   = 5 * time.Second // for one look-up, all servers of resolv.conf together
	backoffMin = 500 * time.Millisecond
	backoffMax = 30 * time.Second
)

// Resolver is what the source needs of a *net.Resolver.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
}

// Config says what is looked up.
type Config struct {
	Name     string        // one that ends in a dot is not looked for in search domains
	Port     int           // of each address of Name
	SRV      bool          // Name has SRV records, and Port counts for nothing
	Interval time.Duration // 0: DefaultInterval

	Resolver Resolver     // nil: the system's
	Logger   hclog.Logger // nil: quiet
	Failed   func()       // called for each failure; nil: nobody counts
}

// Source looks a name up, again and again.
type Source struct{ cfg Config }

// New makes a Source.
func New(cfg Config) (*Source, error) {
	switch {
	case cfg.Name == "":
		return nil, errors.New("no name to look up")
	case !cfg.SRV && (cfg.Port < 1 || cfg.Port > 65535):
		return nil, fmt.Errorf("port %d of %s is none", cfg.Port, cfg.Name)
	}
	if cfg.Interval <= 0 {
		cfg.Interval = DefaultInterval
	}
	if cfg.Resolver == nil {
		cfg.Resolver = net.DefaultResolver
	}
	if cfg.Logger == nil {
		cfg.Logger = hclog.NewNullLogger()
	}
	if cfg.Failed == nil {
		cfg.Failed = func() {}
	}
	return &Source{cfg: cfg}, nil
}

// Run implements discovery.Source. Until the name has an address it says nothing.
func (s *Source) Run(ctx context.Context, up chan<- []discovery.Node) error {
	var last []discovery.Node
	var said string
	backoff := backoffMin
	for {
		set, err := s.lookup(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		next := s.cfg.Interval - s.cfg.Interval/10 + rand.N(s.cfg.Interval/5)
		state := "the nodes are found by their name"
		if err != nil {
			state = "the name of the nodes is not found; those known stay"
			s.cfg.Failed()
			// Sooner than the interval at first, and later where that is short.
			next = backoff/2 + rand.N(backoff/2)
			backoff = min(2*backoff, backoffMax)
		} else {
			backoff = backoffMin
			if len(set) > nodesMost {
				state = "the name has more addresses than are taken"
				err = fmt.Errorf("%d addresses, of which %d are taken", len(set), nodesMost)
				set = set[:nodesMost]
			}
			if !slices.Equal(set, last) {
				last = slices.Clone(set)
				if err := discovery.Send(ctx, up, set); err != nil {
					return err
				}
			}
		}
		s.say(state, said, err)
		said = state
		timer := time.NewTimer(next)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}

// say logs a state once.
func (s *Source) say(state, said string, err error) {
	level, args := hclog.Info, []any{"name", s.cfg.Name}
	if err != nil {
		level, args = hclog.Warn, append(args, "err", err)
	}
	if state == said {
		level = hclog.Debug
	}
	s.cfg.Logger.Log(level, state, args...)
}

// lookup is the nodes of the name, at least one.
func (s *Source) lookup(ctx context.Context) ([]discovery.Node, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, answerIn, fmt.Errorf("no answer in %s", answerIn))
	defer cancel()
	var set []discovery.Node
	var err error
	if s.cfg.SRV {
		var records []*net.SRV
		// Beside an error are those records that are none; the others are good.
		_, records, err = s.cfg.Resolver.LookupSRV(ctx, "", "", s.cfg.Name)
		for _, r := range records {
			// The name "." is RFC 2782's way to say that there is no such service.
			if host := strings.TrimSuffix(r.Target, "."); host != "" && r.Port != 0 {
				set = append(set, discovery.Node{RPCAddr: net.JoinHostPort(host, strconv.Itoa(int(r.Port)))})
			}
		}
	} else {
		var addrs []netip.Addr
		addrs, err = s.cfg.Resolver.LookupNetIP(ctx, "ip", s.cfg.Name)
		for _, a := range addrs {
			set = append(set, discovery.Node{RPCAddr: net.JoinHostPort(a.Unmap().String(), strconv.Itoa(s.cfg.Port))})
		}
	}
	switch {
	case len(set) > 0:
		return discovery.Set(set), nil
	case err == nil:
		return nil, errors.New("the answer is empty")
	}
	return nil, err
}
