package config_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/config"
)

// Whatever is in a file, it is a configuration or is refused with a problem that
// can be shown.
func FuzzFile(f *testing.F) {
	for _, name := range []string{"node.hcl", "cluster/n1.hcl", "broken.hcl", "dev.hcl"} {
		if b, err := os.ReadFile(filepath.Join("../examples/hcl", name)); err == nil {
			f.Add(b, true)
		}
	}
	f.Add([]byte(`{"data_dir":"/x"}`), false)
	path := map[bool]string{true: filepath.Join(f.TempDir(), "f.hcl"), false: filepath.Join(f.TempDir(), "f.json")}
	f.Fuzz(func(t *testing.T, text []byte, hcl bool) {
		require.NoError(t, os.WriteFile(path[hcl], text, 0o600))
		for _, load := range []func() error{
			func() error { _, err := config.LoadNode(config.From{Paths: []string{path[hcl]}}); return err },
			func() error { _, err := config.LoadProxy(config.From{Paths: []string{path[hcl]}}); return err },
		} {
			if err := load(); err != nil {
				require.NotEmpty(t, err.Error())
				var out nowhere
				require.NoError(t, config.Render(&out, err, 80, false))
			}
		}
	})
}

type nowhere struct{}

func (*nowhere) Write(b []byte) (int, error) { return len(b), nil }
