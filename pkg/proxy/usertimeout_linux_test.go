package proxy_test

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/logd-io/logd/pkg/internal/netlimit"
	"github.com/logd-io/logd/pkg/proxy"
)

// gRPC sets it only on what it sees to be TCP, and does not see it through ours.
func TestAPeerThatTakesNothingIsGivenUp(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	lis = proxy.Accepted(lis)
	t.Cleanup(func() { require.NoError(t, lis.Close()) })
	client, err := net.Dial("tcp", lis.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	c, err := lis.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	raw, err := c.(*netlimit.Conn).Conn.(*net.TCPConn).SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Control(func(fd uintptr) {
		ms, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
		require.NoError(t, err)
		require.Equal(t, 10_000, ms)
	}))
}
