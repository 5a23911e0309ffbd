package registrar

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/logd-io/logd/pkg/discovery/zk"
	"github.com/logd-io/logd/pkg/internal/events"
)

const (
	backoffMin = 500 * time.Millisecond // after a failure; it doubles
	backoffMax = 30 * time.Second
	againAfter = time.Second // until a member that somebody removed is made again

	// A member that lives as long as a session without a connection is no accident.
	steadyAfter = zk.DefaultSessionTimeout
)

// Session is what is needed of a zk.Conn.
type Session interface {
	Add(ctx context.Context, path, prefix string, data []byte) (string, error)
	Exists(ctx context.Context, path string) (bool, <-chan struct{}, error)
	Get(ctx context.Context, path string) ([]byte, error)
	Remove(ctx context.Context, path string) error
	Lost() <-chan struct{}
	Err() error
	Close() error
}

// Config of a Registrar.
type Config struct {
	Dial    func(ctx context.Context) (Session, error)
	Path    string // of the serverset
	Address string // host:port that is registered

	Failed func()       // called for each failure; nil: nobody counts
	Logger hclog.Logger // nil: quiet
	Events *events.Log  // may be nil
}

// Registrar keeps one member.
type Registrar struct {
	cfg  Config
	data []byte // of the member; never changed

	mu      sync.Mutex
	ready   bool          // guarded by mu
	changed chan struct{} // closed and replaced, under mu, whenever ready changes
	member  string        // path of the member that is there, as far as is known; guarded by mu

	// Of Run alone:
	stale    string // a member of a session that was lost
	kept     bool   // a stale member could not be removed, and that was said
	troubled bool   // an attempt failed, that was said, and no member was steady since
	backoff  time.Duration
}

// New makes a Registrar of a node that is not ready.
func New(cfg Config) (*Registrar, error) {
	m, err := zk.NewMember(cfg.Address)
	if err != nil {
		return nil, err
	}
	data, err := m.Data()
	if err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = hclog.NewNullLogger()
	}
	if cfg.Failed == nil {
		cfg.Failed = func() {}
	}
	return &Registrar{cfg: cfg, data: data, changed: make(chan struct{}), backoff: backoffMin}, nil
}

// SetReady tells whether the node is ready. It does not block.
func (r *Registrar) SetReady(ready bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ready != r.ready {
		r.ready = ready
		close(r.changed)
		r.changed = make(chan struct{})
	}
}

// Member is the path of the member; empty while there is none.
func (r *Registrar) Member() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.member
}

func (r *Registrar) isReady() (bool, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ready, r.changed
}

func (r *Registrar) setMember(path string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.member = path
}

// Run keeps the member until ctx ends, removes it, and answers context.Cause(ctx). It
// is called once.
func (r *Registrar) Run(ctx context.Context) error {
	for {
		ready, changed := r.isReady()
		if !ready {
			select {
			case <-changed:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			continue
		}
		err := r.session(ctx)
		r.setMember("")
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil:
			r.cfg.Logger.Info("the node is not ready, and is no member in ZooKeeper any more", "path", r.cfg.Path)
			r.cfg.Events.Addf("unregistered", events.Info, "", "is not ready, and no member in ZooKeeper any more")
			continue
		}
		r.failed(err)
		if err := wait(ctx, r.backoff/2+rand.N(r.backoff/2)); err != nil {
			return err
		}
		r.backoff = min(2*r.backoff, backoffMax)
	}
}

// failed counts, and says the first of several failures.
func (r *Registrar) failed(err error) {
	r.cfg.Failed()
	level := hclog.Debug
	if !r.troubled {
		level = hclog.Warn
		r.cfg.Events.Addf("unregistered", events.Warning, "", "cannot be registered in ZooKeeper: %v", err)
	}
	r.troubled = true
	r.cfg.Logger.Log(level, "the node is not registered in ZooKeeper, and tries again", "path", r.cfg.Path, "err", err)
}

// session is a member in one session, which ends with it: nil when the node is not ready
// any more.
func (r *Registrar) session(ctx context.Context) (err error) {
	s, err := r.cfg.Dial(ctx)
	if err != nil {
		return err
	}
	// The server removes what is the session's; also a member that was made without an
	// answer that says so.
	defer s.Close()
	for {
		ready, changed := r.isReady()
		if !ready {
			return nil
		}
		member, err := s.Add(ctx, r.cfg.Path, zk.MemberPrefix, r.data)
		if err != nil {
			return err
		}
		r.registered(member)
		if err := r.removeStale(ctx, s); err != nil {
			return err
		}
		err = r.keep(ctx, s, member, changed)
		switch {
		case errors.Is(err, errRemoved):
			r.setMember("")
			r.cfg.Logger.Warn("somebody has removed the node's member in ZooKeeper; it is made again", "member", member)
			if err := wait(ctx, againAfter); err != nil {
				return err
			}
		case errors.Is(err, zk.ErrLost):
			r.stale = member
			return err
		default:
			return err
		}
	}
}

// registered says so, but after trouble only of a member that lasts.
func (r *Registrar) registered(member string) {
	r.setMember(member)
	if !r.troubled {
		r.tell(member)
	}
}

// steady is when a member has lasted.
func (r *Registrar) steady(member string) {
	r.backoff = backoffMin
	if r.troubled {
		r.troubled = false
		r.tell(member)
	}
}

func (r *Registrar) tell(member string) {
	r.cfg.Logger.Info("the node is a member in ZooKeeper", "member", member, "address", r.cfg.Address)
	r.cfg.Events.Addf("registered", events.Info, "", "is registered in ZooKeeper as %s", member)
}

// errRemoved is that the member is gone while its session is not.
var errRemoved = errors.New("the member was removed")

// keep waits until the member has to go or has gone.
func (r *Registrar) keep(ctx context.Context, s Session, member string, changed <-chan struct{}) error {
	lasts := time.NewTimer(steadyAfter)
	defer lasts.Stop()
	for {
		there, touched, err := s.Exists(ctx, member)
		switch {
		case err != nil:
			return err
		case !there:
			return errRemoved
		}
		select {
		case <-lasts.C:
			r.steady(member)
		case <-touched: // also when the session is over
			select {
			case <-s.Lost():
				return s.Err()
			default:
			}
		case <-s.Lost():
			return s.Err()
		case <-changed:
			ready, next := r.isReady()
			if !ready {
				return nil
			}
			changed = next
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// removeStale removes the member of the session before, if it is still there and ours:
// where the path was made anew, numbers are given again. One that may not be removed
// is left to the end of its session; only a lost connection is an error.
func (r *Registrar) removeStale(ctx context.Context, s Session) error {
	if r.stale == "" || r.stale == r.Member() {
		r.stale = ""
		return nil
	}
	data, err := s.Get(ctx, r.stale)
	if err == nil && bytes.Equal(data, r.data) {
		err = s.Remove(ctx, r.stale)
	}
	switch {
	case err == nil:
		r.kept = false
	case errors.Is(err, zk.ErrNoNode):
	case ctx.Err() != nil, errors.Is(err, zk.ErrLost):
		return err
	default:
		level := hclog.Debug
		if !r.kept {
			level = hclog.Warn
		}
		r.kept = true
		r.cfg.Logger.Log(level, "the node's old member in ZooKeeper cannot be removed, and goes when its session times out", "member", r.stale, "err", err)
	}
	r.stale = ""
	return nil
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
