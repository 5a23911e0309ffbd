package forward

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/config"
	"github.com/logd-io/logd/pkg/proxy/route"
)

// What nobody has set is what the documentation of the configuration says.
func TestDefaultsAreTheConfigurations(t *testing.T) {
	want := config.DefaultProxy()
	got, err := Config{Holder: new(route.Holder)}.withDefaults()
	require.NoError(t, err)
	require.Equal(t, want.Produce.MaxHeld, got.HoldRecords)
	require.EqualValues(t, want.Produce.MaxHeldBytes, got.HoldBytes)
	require.Equal(t, want.Produce.HoldTimeout, got.HoldTimeout)
	require.Equal(t, want.Session.MaxSessions, got.MaxSessions)
	require.Equal(t, want.GetServers, got.GetServers)
}
