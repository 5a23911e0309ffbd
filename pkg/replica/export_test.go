package replica

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/logd-io/logd/pkg/raftstore"
)

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
	NoProof      Switch = "entries are proved"
	NoShy        Switch = "a damaged node delays its candidacy"
	NoForget     Switch = "a refused configuration is forgotten"
	NoPreface    Switch = "a connection is for this node"
	KeepTail     Switch = "a checkpoint that contradicts the log is not held"
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
		case NoForget:
			r.rules.forget = false
		case NoProof:
			r.rules.prove = false
		case NoShy:
			r.rules.shy = false
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
		case NoPreface:
			r.rules.preface = false
		case KeepTail:
			r.probe = &probe{bugs: bugs{keepTail: true}}
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

// Flip flips a bit of the state machine in memory.
func (r *Replica) Flip(what string) {
	f := r.engine.Load().fsm
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.m.producers.order.Front().Value.(*producer)
	switch what {
	case "hash":
		f.m.hash ^= 1 << 17
	case "other hash":
		f.m.hash ^= 1 << 18
	case "sequence":
		p.nextSeq ^= 1 << 40
	case "window":
		p.window[0].offset ^= 1
	case "owner":
		p.owner ^= 1 << 63
	case "key":
		for k := range f.m.keys.byKey {
			f.m.keys.byKey[k] ^= 1 << 20
		}
	case "lowest":
		f.m.lowest ^= 1
	case "bytes":
		f.m.bytes ^= 1 << 30
	default:
		panic(what)
	}
}

// Compared counts the announced states that agreed with this node's, differed,
// and were of entries it does not remember.
func (r *Replica) Compared() (agree, differ, unknown int) {
	value := func(c prometheus.Counter) int {
		reg := prometheus.NewRegistry()
		reg.MustRegister(c)
		all, err := reg.Gather()
		if err != nil {
			panic(err)
		}
		return int(all[0].GetMetric()[0].GetCounter().GetValue())
	}
	return value(r.compared.agree), value(r.compared.differ), value(r.compared.unknown)
}

// Doubted says whether the node's state is in doubt.
func (r *Replica) Doubted() bool {
	e := r.engine.Load()
	return e != nil && e.detector.doubted()
}

// Doubt begins a doubt about an entry that no node remembers.
func (r *Replica) Doubt() {
	r.engine.Load().detector.differs(note{1, 1}, "", 0)
}

// HoldApply keeps the state machine from applying anything until release.
func (r *Replica) HoldApply() (release func()) {
	f := r.engine.Load().fsm
	f.mu.Lock()
	return f.mu.Unlock
}
