package bootstrap

import (
	"errors"
	"fmt"
	"strings"
)

// ErrNoPromise is returned by Forget when there is nothing to forget.
var ErrNoPromise = errors.New("no promise has been made here")

// InvalidError refuses a promise that nobody may make.
type InvalidError struct{ Reason string }

func (e *InvalidError) Error() string { return "promise: " + e.Reason }

// CorruptError reports a promise file that cannot be read. It is not taken for
// no promise, since that could make a second cluster.
type CorruptError struct{ Path, Reason string }

func (e *CorruptError) Error() string {
	return fmt.Sprintf("promise file %s is damaged: %s", e.Path, e.Reason)
}

// PromisedError refuses a promise because another was made.
type PromisedError struct{ To Promise }

func (e *PromisedError) Error() string {
	return fmt.Sprintf("already promised to %s; if that cluster never came to be, "+
		"stop this node and run: logd bootstrap forget", e.To)
}

// HasStateError refuses a promise on a node that is in a cluster.
type HasStateError struct {
	ID      string
	Cluster string // uuid, if known
}

func (e *HasStateError) Error() string {
	return fmt.Sprintf("%s is in a cluster already%s and will not begin another", e.ID, inCluster(e.Cluster))
}

// PeerStateError ends Run: there is a cluster to join, or the remains of one.
type PeerStateError struct{ Peers []Peer }

func (e *PeerStateError) Error() string {
	var b strings.Builder
	for i, p := range e.Peers {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(p.ID + inCluster(p.Cluster))
	}
	return fmt.Sprintf("not bootstrapping, since there are nodes with state (%s): this node can only join them; "+
		"if that cluster is gone for good, stop every node and proxy that remembers it", &b)
}

// ExpectError reports nodes that were told different numbers.
type ExpectError struct {
	ID     string // whose number it is
	Expect int    // 0: it does not bootstrap at all
	Wanted int
}

func (e *ExpectError) Error() string {
	return fmt.Sprintf("bootstrap_expect is %d on %s, but %d here: set the same number on all of the first nodes, "+
		"and none on those that join later", e.Expect, e.ID, e.Wanted)
}

// TooManyError keeps Run waiting: no one can say which of the candidates are meant.
type TooManyError struct {
	Expect     int
	Candidates []string
}

func (e *TooManyError) Error() string {
	return fmt.Sprintf("bootstrap_expect is %d, but %d nodes without state are here (%s): "+
		"stop those that are not meant, or set bootstrap_expect to %d on all",
		e.Expect, len(e.Candidates), strings.Join(e.Candidates, ", "), len(e.Candidates))
}

// RefusedError is a node's answer that it does not promise. An Asker returns it
// when the node said so; every other error means that the node must be asked
// again. Run goes on asking, slowly.
type RefusedError struct {
	Peer string
	Err  error // the peer's reason
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s refused the promise: %v", e.Peer, e.Err)
}
func (e *RefusedError) Unwrap() error { return e.Err }

func inCluster(id string) string {
	if id == "" {
		return ""
	}
	return " (cluster " + id + ")"
}
