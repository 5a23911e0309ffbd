package forward

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Every produce and every read comes by here, nearly all with no error.
func TestNoErrorCostsNothing(t *testing.T) {
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if past(nil) != nil {
			t.Error("nothing became an error")
		}
	}))
}
