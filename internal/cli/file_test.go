package cli_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/internal/cli"
)

func TestMakeFile(t *testing.T) {
	hello := func(w io.Writer) error {
		_, err := io.WriteString(w, "hello")
		return err
	}
	var out bytes.Buffer
	env := cli.Env{Stdout: &out}
	require.NoError(t, cli.MakeFile(env, "-", hello))
	require.Equal(t, "hello", out.String())
	require.ErrorAs(t, cli.MakeFile(cli.Env{Interactive: true}, "-", hello), new(*cli.UsageError))

	dir := t.TempDir()
	file := filepath.Join(dir, "made")
	require.NoError(t, cli.MakeFile(env, file, hello))
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "hello", string(text))
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.EqualValues(t, 0o600, info.Mode())

	bad := func(io.Writer) error { t.Error("it was written"); return nil }
	require.ErrorIs(t, cli.MakeFile(env, file, bad), fs.ErrExist)
	require.FileExists(t, file, "it is another's")
	require.ErrorIs(t, cli.MakeFile(env, filepath.Join(dir, "none", "made"), bad), fs.ErrNotExist)

	file = filepath.Join(dir, "half")
	why := errors.New("it is too little")
	require.ErrorIs(t, cli.MakeFile(env, file, func(w io.Writer) error { return errors.Join(hello(w), why) }), why)
	require.NoFileExists(t, file)
}

// A disk that is full leaves no half of a file.
func TestMakeFileOnAFullDisk(t *testing.T) {
	file := filepath.Join(t.TempDir(), "made")
	var old syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old))
	full := old
	full.Cur = 4096
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &full))
	err := cli.MakeFile(cli.Env{}, file, func(w io.Writer) error {
		_, err := w.Write(make([]byte, 8192))
		return err
	})
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old))
	require.ErrorIs(t, err, syscall.EFBIG)
	require.NoFileExists(t, file)
}
