package replica

import (
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

// Changes of the leader are those that a running node sees: who is restarted while a
// leader leads learns of it, which changed nothing. A rolling restart would else look
// like a cluster that cannot keep a leader.
func TestAStartIsNoChangeOfLeader(t *testing.T) {
	reg := prometheus.NewRegistry()
	r := &Replica{metrics: newMetrics(reg), logger: hclog.NewNullLogger(), viewed: make(chan struct{})}
	changes := func() float64 {
		all, err := reg.Gather()
		require.NoError(t, err)
		for _, f := range all {
			if f.GetName() == "logd_replica_leader_changes_total" {
				return f.GetMetric()[0].GetCounter().GetValue()
			}
		}
		t.Fatal("there is no such metric")
		return 0
	}
	for i, step := range []struct {
		leader string
		want   float64
	}{
		{"", 0},  // just started
		{"a", 0}, // which led all along
		{"", 0},
		{"a", 0}, // it was only not heard of
		{"b", 1},
		{"", 1},
		{"a", 2},
	} {
		r.publish(View{LeaderID: step.leader, Term: uint64(i)})
		require.InDelta(t, step.want, changes(), 0, "step %d", i)
	}
}
