package membership_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/internal/testutil"
	"github.com/logd-io/logd/pkg/membership"
)

// A node that comes back at another address, before the others have missed it, goes
// on, and is found there by all.
func TestANodeMoves(t *testing.T) {
	n1 := start(t, config("n1", membership.RoleStorage))
	join := func(id string) *running {
		cfg := config(id, membership.RoleStorage)
		cfg.RetryJoin = []string{n1.Addr()}
		return start(t, cfg)
	}
	n2, n3 := join("n2"), join("n3")
	others := []*running{n1, n3}
	for _, g := range others {
		sees(t, g, "n1:alive", "n2:alive", "n3:alive")
	}
	old := n2.Addr()
	require.NoError(t, n2.stop())
	n2 = join("n2")
	require.NotEqual(t, old, n2.Addr())
	for _, g := range append(others, n2) {
		testutil.EventuallyOn(t, bound, g.Changes, func() error {
			if m := find(g, "n2"); m.State != membership.Alive || m.GossipAddr != n2.Addr() {
				return fmt.Errorf("n2 is %s at %s, not alive at %s", m.State, m.GossipAddr, n2.Addr())
			}
			return nil
		})
		sees(t, g, "n1:alive", "n2:alive", "n3:alive")
	}
	require.Empty(t, n2.ended)
}

// Two processes have one id, and no packet comes through. Who answers at the other
// address is asked otherwise, and the one that the others know goes on.
func TestTwoWithOneIDWithoutUDP(t *testing.T) {
	for name, tc := range map[string]struct {
		answer   membership.Answer
		outvoted bool
		ends     bool
	}{
		"the others know the other one": {membership.Another, true, true},
		"the others know this one":      {membership.Another, false, false},
		"nobody answers there":          {membership.NoAnswer, true, false},
		"this one is there, too":        {membership.Myself, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			n1 := start(t, config("n1", membership.RoleStorage))
			n1.Deafen(true)
			cfg := config("n2", membership.RoleStorage)
			cfg.RetryJoin = []string{n1.Addr()}
			cfg.Tags.RPCAddr = "n2.example:8400"
			n2 := start(t, cfg)
			n2.Deafen(true)
			sees(t, n1, "n1:alive", "n2:alive")
			asked := make(chan membership.Claim, 100)
			cfg.Tags.RPCAddr = "copy.example:8400"
			cfg.Ask = func(_ context.Context, c membership.Claim) membership.Answer {
				select {
				case asked <- c:
				default:
				}
				return tc.answer
			}
			cfg.Outvoted = func(context.Context, membership.Claim) bool { return tc.outvoted }
			second, err := membership.Open(cfg)
			require.NoError(t, err)
			second.Deafen(true)
			got := run(t, second)
			require.Equal(t, membership.Claim{Addr: n2.Addr(), RPCAddr: "n2.example:8400"}, <-asked)
			if tc.ends {
				var conflict *membership.ConflictError
				require.ErrorAs(t, <-got.ended, &conflict)
			} else {
				_, err := got.Join([]string{n1.Addr()}) // it is told once more
				require.NoError(t, err)
				if tc.answer != membership.NoAnswer { // else nobody is asked for a while
					<-asked
				}
				require.Empty(t, got.ended)
			}
			require.Empty(t, n2.ended)
			require.Equal(t, n2.Addr(), find(n1, "n2").GossipAddr)
		})
	}
}
