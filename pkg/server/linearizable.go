package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/internal/rounds"
	"github.com/logd-io/logd/pkg/replica"
)

const (
	// linearWait bounds a linearizable read, unless the caller's deadline does: the
	// leader's answer, and on a follower the wait for what the leader said.
	linearWait = 5 * time.Second
	// askTimeout bounds one question to the leader, for everybody who waits for it.
	askTimeout = 2 * time.Second
)

// errUnconfirmed is what a linearizable read ends with that nobody has confirmed in
// time. It never reaches a caller.
var errUnconfirmed = errors.New("no majority has confirmed who leads in time")

// linearTime bounds what a linearizable read may take. A caller with a deadline
// gets a little less, so that it hears a reason and not only that time was up.
func linearTime(ctx context.Context) (context.Context, context.CancelFunc) {
	left := linearWait
	if d, ok := ctx.Deadline(); ok {
		left = min(left, time.Until(d)*9/10)
	}
	return context.WithTimeoutCause(ctx, left, errUnconfirmed)
}

// linearize gives the position that a read which begins now has to see. A follower
// asks the leader; reads that come together share the question.
func (s *Server) linearize(ctx context.Context) (position uint64, err error) {
	if s.replica.View().LeaderID == s.cfg.NodeID {
		position, err = s.replica.ReadIndex(ctx)
	} else {
		position, err = s.asks.Do(ctx)
	}
	switch {
	case err == nil:
		return position, nil
	case errors.Is(err, rounds.ErrClosed):
		return 0, apierr.Draining{}
	case errors.Is(err, errUnconfirmed), errors.Is(err, context.DeadlineExceeded):
		return 0, apierr.Behind{Visible: s.log.Visible()}
	}
	return 0, err
}

// askLeader is one round of questions to the leader. What is wrong on the way to it
// is nothing that the caller of this node can act on but by asking another.
func (s *Server) askLeader(ctx context.Context, _ int) (position uint64, err error) {
	v := s.replica.View()
	if v.LeaderID == "" || v.LeaderID == s.cfg.NodeID || s.cfg.ReadIndex == nil {
		return 0, &replica.NotLeaderError{LeaderID: v.LeaderID, Term: v.Term}
	}
	asking, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	position, err = s.cfg.ReadIndex(asking, v.LeaderID)
	switch {
	case err == nil:
		return position, nil
	case ctx.Err() != nil:
		return 0, context.Cause(ctx)
	case apierr.ReasonOf(err) == apierr.ReasonNotLeader:
		return 0, fmt.Errorf("ask %s: %w", v.LeaderID, err)
	}
	s.logger.Debug("the leader did not say what a linearizable read has to see", "leader", v.LeaderID, "err", err)
	return 0, apierr.Behind{Visible: s.log.Visible()}
}

// ReadIndex tells a follower, on the leader, what a read that begins now has to see.
func (s *Server) ReadIndex(ctx context.Context, _ *nodev1.ReadIndexRequest) (*nodev1.ReadIndexResponse, error) {
	ctx, cancel := linearTime(ctx)
	defer cancel()
	position, err := s.replica.ReadIndex(ctx)
	if errors.Is(err, errUnconfirmed) || errors.Is(err, context.DeadlineExceeded) {
		err = apierr.Behind{Visible: s.log.Visible()}
	}
	if err != nil {
		return nil, err
	}
	return &nodev1.ReadIndexResponse{Term: s.replica.View().Term, Position: position}, nil
}

// unaryOnly refuses linearizable on a stream: what one shows moves on with the log,
// and its first record would be the only one the word could be about.
func unaryOnly(linearizable bool) error {
	if linearizable {
		return apierr.Invalid{Field: "linearizable", Why: "is for a single read, not for a stream"}
	}
	return nil
}
