package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestGarbageWaitsOnlyWhileItIsMuchAndCheap(t *testing.T) {
	const mib = 1 << 20
	require.Equal(t, 100, gcPercent(0, 3*mib), "idle")
	require.Equal(t, 100, gcPercent(15*mib, 3*mib))
	require.Equal(t, 400, gcPercent(16*mib, 0), "no collection yet")
	require.Equal(t, 400, gcPercent(200*mib, 3*mib))
	require.Equal(t, 250, gcPercent(200*mib, 6*mib))
	require.Equal(t, 100, gcPercent(200*mib, 12*mib))
	require.Equal(t, 100, gcPercent(200*mib, 1000*mib), "never less than Go's own")
}
