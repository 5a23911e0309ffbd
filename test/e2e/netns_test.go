//go:build system

package e2e_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// inOwnNetwork runs the calling test in a process with a network and mounts of
// its own, so that nothing it does to the network is seen outside, and all of it
// is gone when the process is. It reports whether this is that process.
func inOwnNetwork(t *testing.T) bool {
	t.Helper()
	const mark = "LOGD_TEST_OWN_NETWORK"
	if os.Getenv(mark) != "" {
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root; make test-system says so too")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=10m")
	cmd.Env = append(os.Environ(), mark+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
	}
	out, err := cmd.CombinedOutput()
	t.Logf("in its own network:\n%s", out)
	require.NoError(t, err)
	return false
}

// hosts are network namespaces on one bridge. The test itself sits on the bridge.
type hosts struct{ t *testing.T }

func newHosts(t *testing.T) *hosts {
	t.Helper()
	h := &hosts{t}
	// `ip netns` keeps its names under /run/netns; ours stay in our mounts.
	require.NoError(t, syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""))
	require.NoError(t, syscall.Mount("tmpfs", "/run", "tmpfs", 0, ""))
	h.ip("link set lo up")
	h.ip("link add br0 type bridge")
	h.ip("addr add 10.77.0.254/24 dev br0")
	h.ip("link set br0 up")
	return h
}

func (h *hosts) ip(args string) {
	h.t.Helper()
	require.NoError(h.t, ip(args))
}

func ip(args string) error {
	out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", args, err, out)
	}
	return nil
}

// Address of host i.
func (h *hosts) Address(i int) string { return "10.77.0." + strconv.Itoa(i) }

// Command makes host i and starts argv on it.
func (h *hosts) Command(i int, argv []string) ([]string, error) {
	ns, outside := fmt.Sprintf("h%d", i), fmt.Sprintf("v%d", i)
	err := errors.Join(
		ip("netns add "+ns),
		ip("link add "+outside+" type veth peer name eth0 netns "+ns),
		ip("link set "+outside+" master br0 up"),
		ip("-n "+ns+" addr add "+h.Address(i)+"/24 dev eth0"),
		ip("-n "+ns+" link set eth0 up"),
		ip("-n "+ns+" link set lo up"),
	)
	return append([]string{"ip", "netns", "exec", ns}, argv...), err
}

// cut takes host i off the network, both ways; heal puts it back.
func (h *hosts) cut(i int)  { h.ip(fmt.Sprintf("link set v%d down", i)) }
func (h *hosts) heal(i int) { h.ip(fmt.Sprintf("link set v%d up", i)) }

// deafen makes host i unable to send to host j, which can still send to it.
func (h *hosts) deafen(i, j int) {
	h.ip(fmt.Sprintf("-n h%d route add blackhole %s/32", i, h.Address(j)))
}

func (h *hosts) undeafen(i, j int) {
	h.ip(fmt.Sprintf("-n h%d route del blackhole %s/32", i, h.Address(j)))
}
