package zk

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/logd-io/logd/pkg/discovery"
)

const (
	membersMost = 1024                   // members that are read of a set
	settle      = 50 * time.Millisecond  // changes that come together are one
	readAgain   = time.Minute            // for what no watch tells: a member's new data
	backoffMin  = 500 * time.Millisecond // after a failure; it doubles
	backoffMax  = 30 * time.Second

	// A session that can be read for as long as one lives without a connection is no
	// accident.
	steadyAfter = DefaultSessionTimeout
)

// session is what the source needs of a Conn.
type session interface {
	Children(ctx context.Context, path string, f func(name string)) (<-chan struct{}, error)
	Get(ctx context.Context, path string) ([]byte, error)
	Lost() <-chan struct{}
	Err() error
	Close() error
}

// Options are what a Source tells of its failures, and may be zero.
type Options struct {
	Logger hclog.Logger // nil: quiet
	Failed func()       // called for each failure; nil: nobody counts
}

// Source follows the members of a serverset.
type Source struct {
	path string
	dial func(ctx context.Context) (session, error)
	log  hclog.Logger
	fail func()
}

// New makes a Source.
func New(cfg Config, opt Options) (*Source, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	return newSource(cfg.Path, opt, func(ctx context.Context) (session, error) { return Dial(ctx, cfg) }), nil
}

func newSource(path string, opt Options, dial func(context.Context) (session, error)) *Source {
	s := &Source{path: path, dial: dial, log: opt.Logger, fail: opt.Failed}
	if s.log == nil {
		s.log = hclog.NewNullLogger()
	}
	if s.fail == nil {
		s.fail = func() {}
	}
	return s
}

// run is what one Run knows.
type run struct {
	*Source
	up       chan<- []discovery.Node
	last     []discovery.Node  // what was sent last
	odd      map[string]string // members that were skipped, and why
	state    string            // what was said last of the whole
	troubled bool              // a session failed, that was said, and none was steady since
	backoff  time.Duration
}

// Run implements discovery.Source. While it knows no live member it says nothing: a
// cluster without nodes is of no use to anybody, and a serverset without members is
// mostly one whose sessions have ended.
func (s *Source) Run(ctx context.Context, up chan<- []discovery.Node) error {
	r := &run{Source: s, up: up, odd: map[string]string{}, backoff: backoffMin}
	for {
		err := r.session(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		r.fail()
		r.say(hclog.Warn, "the nodes in ZooKeeper cannot be read; those known stay", err.Error())
		r.troubled = true
		if err := wait(ctx, r.backoff/2+rand.N(r.backoff/2)); err != nil {
			return err
		}
		r.backoff = min(2*r.backoff, backoffMax)
	}
}

// say logs a state once, and after trouble only one that lasts.
func (r *run) say(level hclog.Level, what, why string) {
	if level != hclog.Warn {
		why = ""
	}
	if r.troubled || what == r.state {
		level = hclog.Debug
	} else {
		r.state = what
	}
	args := []any{"path", r.path}
	if why != "" {
		args = append(args, "err", why)
	}
	r.log.Log(level, what, args...)
}

// session follows the set until the session ends.
func (r *run) session(ctx context.Context) error {
	s, err := r.dial(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	again := time.NewTimer(readAgain)
	defer again.Stop()
	lasts := time.NewTimer(steadyAfter)
	defer lasts.Stop()
	for {
		set, changed, err := r.read(ctx, s)
		if err != nil {
			return err
		}
		if len(set) > 0 && !slices.Equal(set, r.last) {
			r.last = slices.Clone(set)
			if err := discovery.Send(ctx, r.up, set); err != nil {
				return err
			}
		}
		again.Reset(readAgain)
		select {
		case <-lasts.C:
			r.backoff, r.troubled = backoffMin, false // and what is read now is said
		case <-changed:
			err = wait(ctx, settle)
		case <-again.C:
		case <-s.Lost():
			err = s.Err()
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		if err != nil {
			return err
		}
	}
}

// read is the live members, and what is closed when there may be others.
func (r *run) read(ctx context.Context, s session) (set []discovery.Node, changed <-chan struct{}, err error) {
	var names []string
	more := 0
	changed, err = s.Children(ctx, r.path, func(name string) {
		switch {
		case !strings.HasPrefix(name, MemberPrefix):
		case len(names) == membersMost:
			more++
		default:
			names = append(names, name)
		}
	})
	switch {
	case errors.Is(err, ErrNoNode):
		r.say(hclog.Info, "the path does not exist in ZooKeeper yet; it is waited for", "")
		return nil, changed, nil
	case err != nil:
		return nil, nil, fmt.Errorf("list %s: %w", r.path, err)
	}
	odd := map[string]string{}
	for _, name := range names {
		data, err := s.Get(ctx, r.path+"/"+name)
		var m Member
		switch {
		case errors.Is(err, ErrNoNode):
			continue // it has just gone
		case ofMember(err):
		case err != nil:
			return nil, nil, fmt.Errorf("read %s/%s: %w", r.path, name, err)
		default:
			m, err = ParseMember(data)
		}
		switch {
		case err != nil:
			odd[name] = err.Error()
		case m.Status == Alive:
			addr, _ := m.Addr() // ParseMember has seen to it
			set = append(set, discovery.Node{RPCAddr: addr})
		}
	}
	for name, why := range odd {
		if r.odd[name] == "" {
			r.log.Warn("a member in ZooKeeper is skipped", "path", r.path, "member", name, "err", why)
		}
	}
	r.odd = odd
	set = discovery.Set(set)
	switch {
	case more > 0:
		r.say(hclog.Warn, "ZooKeeper has more members than are read", fmt.Sprintf("%d members, of which %d are read", len(names)+more, membersMost))
	case len(set) == 0:
		r.say(hclog.Info, "ZooKeeper has no live member; the nodes known stay", "")
	default:
		r.say(hclog.Info, "the nodes are read from ZooKeeper", "")
	}
	return set, changed, nil
}

// ofMember tells an error that says something about one member from those that concern
// all: of the session and of the connection.
func ofMember(err error) bool {
	var answer *ServerError
	return errors.Is(err, ErrTooLarge) || errors.As(err, &answer) && !answer.ofSession()
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
