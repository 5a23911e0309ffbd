package reload_test

import (
	"errors"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/internal/reload"
)

func TestAllOrNothing(t *testing.T) {
	reg := prometheus.NewRegistry()
	r, err := reload.New("logd", hclog.NewNullLogger(), reg)
	require.NoError(t, err)
	successful := func() (is float64) {
		families, err := reg.Gather()
		require.NoError(t, err)
		for _, f := range families {
			if f.GetName() == "logd_config_last_reload_successful" {
				is = f.GetMetric()[0].GetGauge().GetValue()
			}
		}
		return is
	}
	require.InDelta(t, 1, successful(), 0)

	used := 0
	fine := reload.Func(func() (func(), error) { return func() { used++ }, nil })
	broken := errors.New("broken")
	bad := reload.Func(func() (func(), error) { return nil, broken })
	require.ErrorIs(t, r.All(fine, bad, fine), broken)
	require.Zero(t, used, "one that failed keeps the others from being used")
	require.InDelta(t, 0, successful(), 0)

	require.NoError(t, r.All(fine, fine))
	require.Equal(t, 2, used)
	require.InDelta(t, 1, successful(), 0)
	problems, err := testutil.GatherAndLint(reg)
	require.NoError(t, err)
	require.Empty(t, problems)
}
