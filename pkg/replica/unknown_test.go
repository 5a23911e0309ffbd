package replica_test

import (
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/replica"
)

// A committed entry that this version cannot read stops the node, with a message that
// says what to do, as often as it is started. It is never skipped, and nothing is lost.
func TestAnEntryOfANewerVersionStopsTheNode(t *testing.T) {
	t.Parallel()
	newer := map[string][]byte{
		"control entry of type 200": {2, 200, 1, 2, 3},
		"payload of kind 3":         {3, 1, 2, 3},
		"batch with flags 0x80":     data("x"),
	}
	newer["batch with flags 0x80"][2+40] = 0x80
	for what, payload := range newer {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			c, n, p := follower(t)
			known := entries(2, 4, 2, "known")
			_, err := p.appendEntries(n.id, 2, 1, 1, 4, known...)
			require.NoError(t, err)
			n.visible(3)
			unknown := &raft.Log{Index: 5, Term: 2, Type: raft.LogCommand, Data: payload}
			later := entries(6, 7, 2, "later")
			for run := range 3 {
				c.eventually(func() bool {
					// Cut off by the end, or lost on a connection of the run before.
					_, _ = p.appendEntries(n.id, 2, 4, 2, 7, append([]*raft.Log{unknown}, later...)...)
					return len(n.ended) > 0
				}, "it ends")
				err = <-n.ended
				n.ended <- err // for stop
				var fatal *replica.FatalError
				require.ErrorAs(t, err, &fatal, run)
				var entry *replica.UnknownEntryError
				require.ErrorAs(t, err, &entry)
				require.Equal(t, replica.UnknownEntryError{Index: 5, Term: 2, What: what}, *entry)
				require.ErrorContains(t, err, "newer")
				require.ErrorContains(t, err, "leader of term 2")
				_ = n.stop()
				n.start()
				require.Equal(t, uint64(7), n.r.Log().Last(), "what it acknowledged is there")
				e, err := n.r.Log().Entry(5)
				require.NoError(t, err)
				require.Equal(t, payload, e.Data)
				require.LessOrEqual(t, n.r.Log().Visible(), uint64(3), "nothing behind it is applied")
			}
		})
	}
}
