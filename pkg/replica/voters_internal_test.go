package replica

import (
	"errors"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

func TestHowFarAPeerIsKnownToBe(t *testing.T) {
	heartbeat := &raft.AppendEntriesRequest{Term: 2}
	entries := &raft.AppendEntriesRequest{Term: 2, PrevLogEntry: 7, Entries: make([]*raft.Log, 3)}
	yes := func(last uint64) *raft.AppendEntriesResponse {
		return &raft.AppendEntriesResponse{Success: true, LastLog: last}
	}
	for name, tc := range map[string]struct {
		before uint64
		req    *raft.AppendEntriesRequest
		resp   *raft.AppendEntriesResponse
		err    error
		want   uint64
	}{
		"it has taken entries":                       {5, entries, yes(7), nil, 10},
		"it has less than was thought":               {12, entries, yes(7), nil, 10},
		"a heartbeat tells of nobody's entries":      {0, heartbeat, yes(99), nil, 0},
		"or of fewer than there were":                {10, heartbeat, yes(4), nil, 4},
		"or of more, which may not be ours":          {10, heartbeat, yes(12), nil, 10},
		"its log is another":                         {10, entries, &raft.AppendEntriesResponse{LastLog: 12}, nil, 0},
		"it has no room, which changes nothing here": {10, entries, yes(0), errors.New("refused"), 10},
	} {
		require.Equal(t, tc.want, endOf(tc.before, tc.req, tc.resp, tc.err), name)
	}
}
