package replica

import "github.com/logd-io/logd/pkg/raftstore"

// Switch turns off, on a replica that does not run yet, one of the rules that
// tests show to be needed.
type Switch string

const (
	NoClamp      Switch = "commit clamp"
	NoRaise      Switch = "append below the start"
	NoShorten    Switch = "append by bytes"
	NoInstall    Switch = "install with raft stopped"
	NoHeartbeats Switch = "heartbeats in the main loop"
	Replay       Switch = "applied guard"
	NoPersist    Switch = "replication waits for a peer"
	NoReserve    Switch = "reserve of disk space"
	NoRefused    Switch = "peers without room get what comes before records"
	NoLast       Switch = "the records in flight are taken without room"
	OlderAnswers Switch = "reads count answers to what was sent after they began"
	Trusting     Switch = "clocks are doubted"
)

// Without turns rules off. It must come before Run.
func (r *Replica) Without(off ...Switch) {
	for _, s := range off {
		switch s {
		case NoClamp:
			r.rules.clamp = false
		case NoRaise:
			r.rules.raise = false
		case NoShorten:
			r.rules.shorten = false
		case NoInstall:
			r.rules.install = false
		case NoHeartbeats:
			r.rules.heartbeats = false
		case NoPersist:
			r.rules.persist = false
		case NoReserve:
			r.rules.reserve = false
		case NoRefused:
			r.rules.refused = false
		case NoLast:
			r.reserve.most = 0
		case OlderAnswers:
			r.older = true
		case Trusting:
			r.trusting = true
		case Replay:
			r.replayed = true
		}
	}
}

// Store is the replica's store.
func (r *Replica) Store() *raftstore.Store { return r.store }

// Checkpoint takes one now.
func (r *Replica) Checkpoint() error {
	e := r.engine.Load()
	if e == nil {
		return ErrNotRunning
	}
	f := e.raft.Snapshot()
	endWith(f, e.done)
	if err := f.Error(); err != nil {
		return err
	}
	e.fsm.checkpointed()
	return nil
}

// Preface is what a dialer sends first.
func Preface(cluster, from, to string) []byte {
	return preface{cluster: cluster, from: from, to: to}.encode()
}
