package control

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
)

// A follower knows no leader for a moment whenever one is elected. That is not held
// against it; that it knows none for as long as patience is.
func TestCutOff(t *testing.T) {
	const patience = time.Second
	t0 := time.Unix(1_000_000, 0)
	var m member
	alone, led := &nodev1.ClusterView{}, &nodev1.ClusterView{LeaderId: "n0"}

	require.False(t, m.cutOff(t0, patience), "it has said nothing")
	m.saw(alone, t0)
	m.saw(alone, t0.Add(patience/2))
	require.False(t, m.cutOff(t0.Add(patience-1), patience))
	require.True(t, m.cutOff(t0.Add(patience), patience), "the second view says nothing new")
	m.saw(led, t0.Add(patience))
	require.False(t, m.cutOff(t0.Add(2*patience), patience))
	m.saw(alone, t0.Add(2*patience))
	m.saw(nil, time.Time{})
	m.saw(alone, t0.Add(3*patience))
	require.False(t, m.cutOff(t0.Add(3*patience), patience), "it was out of reach, and may be anything now")
}
