package replica

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// plantedBugs are mistakes in replication that the simulator has to find. Each
// says what it is and which checks may be the first to see it.
var plantedBugs = []struct {
	name, what string
	caught     []string
	plant      func(*simOptions)
}{
	{"ack on propose", "a batch is acknowledged when Raft has taken it, not when it is committed",
		[]string{"acknowledged"}, func(o *simOptions) { o.bugs.ackProposed = true }},
	{"ack before the follower's sync", "one node answers for entries that its disk has not got",
		[]string{"durable", "opens"}, func(o *simOptions) {
			o.apart = func(h *simHost) { h.lies = h.id == simID(2, 1) }
		}},
	{"offsets when proposed", "a batch gets the offsets that the log seemed to end at when it was proposed",
		[]string{"acknowledged", "real time"}, func(o *simOptions) { o.bugs.early = true }},
	{"new offsets for a duplicate", "a repeat is answered with the offsets it would get now",
		[]string{"once"}, func(o *simOptions) { o.bugs.newOffsets = true }},
	{"no sequence check", "whatever sequence comes is appended",
		[]string{"once"}, func(o *simOptions) { o.bugs.noSequence = true }},
	{"expiry by clock", "each node forgets producers when its clock says so",
		[]string{"once", "state machine safety"}, func(o *simOptions) { o.bugs.expireByClock = true }},
	{"no producers in a checkpoint", "a checkpoint lacks the producer table",
		[]string{"state machine safety"}, func(o *simOptions) { o.bugs.noProducers = true }},
	{"keys lost on restore", "the request keys of a checkpoint are not restored",
		[]string{"state machine safety"}, func(o *simOptions) { o.bugs.noKeys = true }},
	{"visible too high", "the offset index is left as it is when an earlier checkpoint is restored",
		[]string{"visible"}, func(o *simOptions) { o.bugs.noRewind = true }},
	{"shown when stored", "one node shows records that it has stored, not only those that are committed",
		[]string{"committed only", "stops", "visible"}, func(o *simOptions) {
			o.apart = func(h *simHost) { h.shows = h.id == simID(2, 1) }
		}},
	{"vote not persisted", "one node forgets its vote when it restarts",
		[]string{"vote and term stay", "one vote a term"}, func(o *simOptions) {
			o.apart = func(h *simHost) { h.forgetVote = h.id == simID(3, 1) }
		}},
	{"term not persisted", "one node forgets its term when it restarts",
		[]string{"vote and term stay"}, func(o *simOptions) {
			o.apart = func(h *simHost) { h.oldTerm = h.id == simID(3, 1) }
		}},
	{"configuration lost", "a checkpoint is restored without the newest member",
		[]string{"configuration"}, func(o *simOptions) {
			o.apart = func(h *simHost) { h.oldConfig = true }
		}},
}

// Every planted bug is caught, by a check that is meant for it, and the run that
// caught it is clean without the bug.
func TestPlantedBugs(t *testing.T) {
	for _, bug := range plantedBugs {
		t.Run(bug.name, func(t *testing.T) {
			t.Parallel()
			for seed := uint64(1); seed <= 40; seed++ {
				opt := simOptions{seed: seed, length: 30 * time.Second}
				bug.plant(&opt)
				res := simulate(t, opt)
				if res.found == nil {
					continue
				}
				t.Logf("%s: caught after %v of seed %d by %q: %s", bug.what, res.found.at.Round(time.Millisecond), seed, res.found.check, res.found.text)
				require.Contains(t, bug.caught, res.found.check, res.report(seed))
				clean := simulate(t, simOptions{seed: seed, length: opt.length})
				clean.require(t, seed)
				return
			}
			t.Fatalf("%s: not caught", bug.what)
		})
	}
}
