package agent

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/logd-io/logd/pkg/apierr"
)

// What a node says of why it is not taken in is the leader's word, when there is one,
// and not that another node knows of no leader.
func TestWhatTellsMostIsSaid(t *testing.T) {
	reads := func(err interface{ GRPCStatus() *status.Status }) refusal {
		return refusal{"n2", err.GRPCStatus().Err()}
	}
	vague := []refusal{
		reads(apierr.NotLeader{}), {"n2", status.Error(codes.Unavailable, "connection refused")}, {"n2", errors.New("no address")},
	}
	for _, said := range []refusal{reads(apierr.Invalid{Why: "node1 is in the configuration as another"}), reads(apierr.PermissionDenied{Why: "no join"})} {
		require.True(t, said.tellsMore(refusal{}))
		require.False(t, said.tellsMore(said), "the first stays")
		for _, v := range vague {
			require.True(t, v.tellsMore(refusal{}))
			require.True(t, said.tellsMore(v))
			require.False(t, v.tellsMore(said))
			require.False(t, v.tellsMore(vague[0]))
		}
	}
}
