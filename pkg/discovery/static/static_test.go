package static_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/logd-io/logd/pkg/discovery"
	"github.com/logd-io/logd/pkg/discovery/discoverytest"
	"github.com/logd-io/logd/pkg/discovery/static"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	discoverytest.Suite{
		New: func(t *testing.T) discovery.Source {
			s, err := static.New([]string{"b.example:8400", "a.example:8400", "b.example:8400", "[::1]:8400"})
			require.NoError(t, err)
			return s
		},
		First: []discovery.Node{{RPCAddr: "[::1]:8400"}, {RPCAddr: "a.example:8400"}, {RPCAddr: "b.example:8400"}},
	}.Run(t)
}

func TestWhatIsNoAddressIsRefused(t *testing.T) {
	for _, bad := range []string{"", "host", ":8400", "host:", "::1:8400", "a:b:c"} {
		_, err := static.New([]string{"good:8400", bad})
		require.ErrorContains(t, err, `"`+bad+`"`)
	}
}
