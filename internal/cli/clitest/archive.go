package clitest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path"
	"testing"

	"github.com/stretchr/testify/require"
)

// Archive is what is in the files of a .tar.gz, by the last part of their names. It fails
// t when others than its owner may read one.
func Archive(t *testing.T, file string) map[string]string {
	t.Helper()
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	z, err := gzip.NewReader(bytes.NewReader(b))
	require.NoError(t, err)
	files := map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		require.NoError(t, err)
		if h.Typeflag != tar.TypeReg {
			continue
		}
		require.EqualValues(t, 0o600, h.Mode, h.Name)
		text, err := io.ReadAll(r)
		require.NoError(t, err)
		files[path.Base(h.Name)] = string(text)
	}
}
