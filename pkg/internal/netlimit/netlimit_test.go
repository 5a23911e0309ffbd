package netlimit_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/logd-io/logd/pkg/internal/netlimit"
	"github.com/logd-io/logd/pkg/internal/testutil"
)

func TestMain(m *testing.M) { testutil.VerifyMain(m) }

const patience = 10 * time.Second

// pair is both ends of a connection through lis.
func pair(t *testing.T, lis net.Listener) (server *netlimit.Conn, client net.Conn) {
	t.Helper()
	client, err := new(net.Dialer).DialContext(t.Context(), "tcp", lis.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	c, err := lis.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	require.NoError(t, client.SetDeadline(time.Now().Add(patience)))
	return c.(*netlimit.Conn), client
}

func listen(t *testing.T, n *netlimit.Newest) net.Listener {
	t.Helper()
	lis, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, lis.Close()) })
	return netlimit.Listener{Listener: lis, Newest: n}
}

// talks says whether what one end writes arrives at the other.
func talks(server, client net.Conn) bool {
	if _, err := server.Write([]byte("x")); err != nil {
		return false
	}
	_, err := client.Read(make([]byte, 1))
	return err == nil
}

func TestTheOldestGivesWay(t *testing.T) {
	gone := 0
	n := netlimit.NewNewest(2, func() { gone++ })
	lis := listen(t, n)
	s1, c1 := pair(t, lis)
	s2, c2 := pair(t, lis)
	require.NoError(t, s1.Keep(nil))
	s3, c3 := pair(t, lis)
	require.Zero(t, gone, "what is kept does not count")
	s4, c4 := pair(t, lis)
	require.Equal(t, 1, gone)
	require.Equal(t, 2, n.Len())
	require.True(t, talks(s1, c1), "what is kept stays")
	require.False(t, talks(s2, c2))
	require.True(t, talks(s3, c3))
	require.True(t, talks(s4, c4))
	require.ErrorIs(t, s2.Keep(nil), net.ErrClosed)
	require.NoError(t, s3.Close())
	_ = s3.Close() // harmless
	require.Equal(t, 1, n.Len())
}

func TestGateCountsUntilClosed(t *testing.T) {
	lis := listen(t, netlimit.NewNewest(8, nil))
	g := netlimit.NewGate(2)
	s1, _ := pair(t, lis)
	s2, _ := pair(t, lis)
	s3, _ := pair(t, lis)
	require.NoError(t, s1.Keep(g))
	require.NoError(t, s2.Keep(g))
	var full *netlimit.FullError
	require.ErrorAs(t, s3.Keep(g), &full)
	require.Equal(t, 2, full.Most)
	require.NoError(t, s1.Close())
	_ = s1.Close() // gives nothing back twice
	require.NoError(t, s3.Keep(g))
	s4, _ := pair(t, lis)
	require.ErrorAs(t, s4.Keep(g), &full)
}

// refusing is a handshake that fails.
type refusing struct {
	credentials.TransportCredentials
}

func (refusing) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("no")
}

func TestCredentialsKeepWhoGotThrough(t *testing.T) {
	n := netlimit.NewNewest(8, nil)
	lis := listen(t, n)
	refused := 0
	door := netlimit.Door{Gate: netlimit.NewGate(1), Refused: func(*netlimit.FullError) { refused++ }}
	creds := netlimit.Credentials(insecure.NewCredentials(), door)
	s1, c1 := pair(t, lis)
	s2, _ := pair(t, lis)
	conn, info, err := creds.ServerHandshake(s1)
	require.NoError(t, err)
	require.Same(t, s1, info.(netlimit.Held).Conn)
	require.Equal(t, "insecure", info.AuthType())
	require.Equal(t, 1, n.Len())
	_, _, err = creds.ServerHandshake(s2)
	var full *netlimit.FullError
	require.ErrorAs(t, err, &full)
	require.Equal(t, 1, refused)
	require.True(t, talks(conn, c1))
	require.NoError(t, conn.Close())
	_, _, err = netlimit.Credentials(refusing{}, door).ServerHandshake(s2)
	require.EqualError(t, err, "no")
	_, _, err = creds.ServerHandshake(s2)
	require.NoError(t, err, "what failed holds no place")
}

// One client cannot take what is there for all.
func TestFairGate(t *testing.T) {
	g := netlimit.NewFairGate(4, 2)
	require.NoError(t, g.Enter("a"))
	require.NoError(t, g.Enter("a"))
	var full *netlimit.FullError
	require.ErrorAs(t, g.Enter("a"), &full)
	require.Equal(t, netlimit.FullError{Most: 2, Of: "a"}, *full)
	require.NoError(t, g.Enter("b"))
	require.NoError(t, g.Enter("c"))
	require.ErrorAs(t, g.Enter("d"), &full)
	require.Equal(t, netlimit.FullError{Most: 4}, *full)
	require.Equal(t, 4, g.Open())
	g.Leave("a")
	require.NoError(t, g.Enter("a"))
	for _, c := range []string{"a", "a", "b", "c"} {
		g.Leave(c)
	}
	require.Zero(t, g.Open())
	require.NoError(t, g.Enter("a"))
}

func TestBudgetLeavesRoom(t *testing.T) {
	for _, files := range []int{200, 1024, 4096, 65536, 1 << 20} {
		b := netlimit.Clients(files)
		require.Positive(t, b.New)
		require.LessOrEqual(t, b.New+b.Kept+2*netlimit.Aside(files), files*4/5, "%d files", files)
	}
	require.Positive(t, netlimit.Files())
}

func TestStrikesAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		c := netlimit.NewNewest(1, nil).Add(near)
		defer c.Close()
		for range 365 {
			require.Equal(t, 1, c.Strike(), "who is slow once a day begins anew each day")
			time.Sleep(24 * time.Hour)
		}
		for i := range 40 {
			require.Equal(t, i+1, c.Strike(), "at once they add up")
		}
		time.Sleep(10*time.Hour + 50*time.Minute)
		require.Equal(t, 31, c.Strike(), "one an hour is forgotten")
		time.Sleep(10 * time.Minute)
		require.Equal(t, 31, c.Strike(), "and what is left of an hour is not lost")
		time.Sleep(30 * time.Minute)
		require.Equal(t, 32, c.Strike())
	})
}
