package main

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
)

func TestAutopilotStateIsInSeconds(t *testing.T) {
	b, err := json.Marshal(stateOf(&nodev1.Autopilot{Healthy: true, FailureTolerance: 1, Servers: []*nodev1.ServerHealth{
		{Id: "n1.00000001", Voter: true, Leader: true, Gossip: "alive", Healthy: true, StableMs: 61500, LastContactMs: 20, LastIndex: 7, LastTerm: 2},
		{Id: "n2.00000002", Gossip: "failed", LastContactMs: -1, DeadMs: 1500},
	}}))
	require.NoError(t, err)
	require.JSONEq(t, `{"healthy": true, "failure_tolerance": 1, "servers": [
		{"id": "n1.00000001", "voter": true, "leader": true, "gossip": "alive", "healthy": true,
			"stable_seconds": 61.5, "last_contact_seconds": 0.02, "last_index": 7, "last_term": 2, "dead_seconds": 0},
		{"id": "n2.00000002", "voter": false, "leader": false, "gossip": "failed", "healthy": false,
			"stable_seconds": 0, "last_contact_seconds": null, "dead_seconds": 1.5}
	]}`, string(b))
}
