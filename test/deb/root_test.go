//go:build system

package deb_test

import (
	"bufio"
	"bytes"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// root is this machine, as a chroot sees it in which everything may be changed:
// what is written goes to memory, and is gone with the test.
type root struct {
	t   *testing.T
	pid int // of what holds the mounts
}

// The first lines make the overlay; the last waits for the end of the test.
const mounts = `set -e
mount -t tmpfs -o mode=0755 tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root
mount -t proc proc /mnt/root/proc
mount --rbind /dev /mnt/root/dev
mount -t tmpfs -o mode=0755 tmpfs /mnt/root/run
mount -t tmpfs -o mode=1777 tmpfs /mnt/root/tmp
echo mounted
exec cat >/dev/null`

func newRoot(t *testing.T) *root {
	t.Helper()
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", mounts)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		_ = cmd.Wait()
		require.NoError(t, err, "%s", stderr.Bytes())
	}
	require.Equal(t, "mounted\n", line)
	return &root{t: t, pid: cmd.Process.Pid}
}

func (r *root) command(argv ...string) *exec.Cmd {
	// One argument after the other: chroot's own must not eat the command's.
	cmd := exec.Command("nsenter", append([]string{
		"--target", strconv.Itoa(r.pid), "--mount", "--", "chroot", "/mnt/root", "env", "-C", "/tmp", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C",
	}, argv...)...)
	return cmd
}

// run answers all that the command wrote; it must succeed.
func (r *root) run(argv ...string) string {
	r.t.Helper()
	out, err := r.command(argv...).CombinedOutput()
	require.NoError(r.t, err, "%s\n%s", strings.Join(argv, " "), out)
	return string(out)
}

func (r *root) sh(script string) string {
	r.t.Helper()
	return r.run("sh", "-euc", script)
}

// fails answers what a command wrote that must not succeed.
func (r *root) fails(argv ...string) string {
	r.t.Helper()
	out, err := r.command(argv...).CombinedOutput()
	require.Error(r.t, err, "%s\n%s", strings.Join(argv, " "), out)
	return string(out)
}

// write makes a file.
func (r *root) write(path, mode string, content io.Reader) {
	r.t.Helper()
	cmd := r.command("sh", "-euc", `cat >"$0" && chmod "$1" "$0"`, path, mode)
	cmd.Stdin = content
	out, err := cmd.CombinedOutput()
	require.NoError(r.t, err, "%s: %s", path, out)
}

// stat answers mode, owner, group and name of what is there.
func (r *root) stat(paths ...string) string {
	r.t.Helper()
	return r.run(append([]string{"stat", "-c", "%a %U:%G %n"}, paths...)...)
}
