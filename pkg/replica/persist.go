package replica

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// firstRetry and lastRetry bound the pause between two attempts to reach a
	// peer that entries wait for.
	firstRetry = 10 * time.Millisecond
	lastRetry  = 250 * time.Millisecond
)

// persist repeats a call to a peer that cannot be reached for as long as this
// node has to replicate to it. Told of each failure, Raft would wait after it,
// in the end for ten seconds, and whoever came back after a minute would stay
// behind that long. Heartbeats have a pause of their own, and it is short.
//
// Raft waits for a replication when it shuts down, which ends t.ctx; it waits
// for none when it steps down.
func (t *transport) persist(id raft.ServerID, term uint64, again func(error) bool, call func() error) error {
	for pause := firstRetry; ; pause = min(2*pause, lastRetry) {
		err := t.again(call)
		if err == nil || !again(err) || !t.rules.persist || !t.replicates(string(id), term) {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-t.ctx.Done():
			timer.Stop()
			return err
		}
	}
}

// isHeartbeat says whether req only says that its sender leads.
func isHeartbeat(req *raft.AppendEntriesRequest) bool {
	return req.PrevLogEntry == 0 && len(req.Entries) == 0 && req.LeaderCommitIndex == 0
}

// dialError says that no connection to a peer was to be had.
type dialError struct {
	to  string
	err error
}

func (e *dialError) Error() string { return fmt.Sprintf("dial %s: %v", e.to, e.err) }

func (e *dialError) Unwrap() error { return e.err }

func isDialError(err error) bool {
	var d *dialError
	return errors.As(err, &d)
}

// unreachable says whether err comes from the way to the peer, not from the peer.
func unreachable(err error) bool {
	var timeout net.Error
	return isDialError(err) || isClosedConn(err) || errors.Is(err, os.ErrDeadlineExceeded) ||
		errors.As(err, &timeout) && timeout.Timeout()
}
