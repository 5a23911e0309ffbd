package agent

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/autopilot"
)

// A server that never answered has no last contact, and none is not 0.
func TestNoContactIsNotZero(t *testing.T) {
	require.Equal(t, int64(-1), serverHealth(autopilot.Server{LastContact: -1}).GetLastContactMs())
	require.Equal(t, int64(20), serverHealth(autopilot.Server{LastContact: 20 * time.Millisecond}).GetLastContactMs())
}
