package control

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What requests say of a follower, and when it rests for it.
func TestTrust(t *testing.T) {
	const base = 500 * time.Millisecond
	type step struct {
		after   time.Duration
		fails   int
		answers int           // after them
		rests   time.Duration // from then on; 0: it is in use
	}
	const s = time.Second
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"a failure is a failure of the request", []step{{fails: 1}}},
		{"two are bad luck", []step{{fails: 2}}},
		{"three in a row are the node's", []step{{fails: 3, rests: base}}},
		{"however long it takes, while it is not too long", []step{{fails: 1}, {after: 29 * s, fails: 1}, {after: 29 * s, fails: 1, rests: base}}},
		{"half a minute apart they have nothing to do with each other", []step{{fails: 2}, {after: 31 * s, fails: 2}, {after: 31 * s, fails: 2}}},
		{"an answer between them speaks for the node", []step{{fails: 2}, {answers: 1}, {fails: 2}, {answers: 1}, {fails: 2}}},
		{"so one that is flawed, and answers most, stays", []step{
			{fails: 1, answers: 9}, {fails: 1, answers: 9}, {fails: 1, answers: 9}, {fails: 1, answers: 9}, {fails: 1, answers: 9}, {fails: 1, answers: 9},
		}},
		{"hundreds are one rest", []step{{fails: 500, rests: base}}},
		{"what was on its way when the rest began does not make it longer", []step{{fails: 3, rests: base}, {after: base / 2, fails: 50, rests: base / 2}}},
		{"after the rest it is in use", []step{{fails: 3, rests: base}, {after: base}}},
		{"and on trial: one failure more and it rests for longer", []step{
			{fails: 3, rests: base}, {after: base, fails: 1, rests: 2 * base}, {after: 2 * base, fails: 1, rests: 4 * base},
		}},
		{"but never longer than ten seconds", []step{
			{fails: 3, rests: base}, {after: base, fails: 1, rests: s}, {after: s, fails: 1, rests: 2 * s}, {after: 2 * s, fails: 1, rests: 4 * s},
			{after: 4 * s, fails: 1, rests: 8 * s}, {after: 8 * s, fails: 1, rests: 10 * s}, {after: 10 * s, fails: 1, rests: 10 * s},
		}},
		{"an answer ends the trial, but the next rest is not the first", []step{
			{fails: 3, rests: base}, {after: base, answers: 1}, {fails: 2}, {fails: 1, rests: 2 * base},
		}},
		{"half a minute without a failure, and it was nothing", []step{
			{fails: 3, rests: base}, {after: base, answers: 1}, {after: 30 * s, fails: 2}, {fails: 1, rests: base},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var tr trust
			var answers int64
			now := time.Unix(1_000_000, 0)
			for i, step := range c.steps {
				now = now.Add(step.after)
				for range step.fails {
					tr.fail(now, answers, base)
				}
				answers += int64(step.answers)
				require.Equal(t, step.rests > 0, tr.resting(now), "step %d: %+v", i, tr)
				if step.rests > 0 {
					require.Equal(t, step.rests, tr.restsUntil.Sub(now), "step %d", i)
				}
			}
		})
	}
}
