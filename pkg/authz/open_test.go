package authz_test

import (
	"os"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/authz"
	"github.com/logd-io/logd/pkg/internal/testutil"
)

// Who may write the rules decides who may do what, so it is told of.
func TestFilesThatOthersMayWriteAreTold(t *testing.T) {
	f := write(t, "", "p, alice, *, produce\n")
	for mode, told := range map[os.FileMode]bool{0o600: false, 0o644: false, 0o664: true, 0o646: true} {
		require.NoError(t, os.Chmod(f.Policy, mode))
		log := new(testutil.Log)
		a, err := authz.Open(authz.Options{Files: f.Files, Logger: hclog.New(&hclog.LoggerOptions{Output: log})})
		require.NoError(t, err)
		const warning = "others than its owner may write"
		if told {
			require.Contains(t, log.String(), warning, "%v", mode)
		} else {
			require.NotContains(t, log.String(), warning, "%v", mode)
		}
		require.NoError(t, a.Reload())
	}
}
