package zk_test

import (
	"context"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/discovery/zk"
	"github.com/logd-io/logd/pkg/internal/testutil"
	"github.com/logd-io/logd/pkg/tlsconf"
	"github.com/logd-io/logd/pkg/tlsconf/tlstest"
)

func TestMain(m *testing.M) { testutil.VerifyMain(m) }

const bound = 30 * time.Second // a machine that hangs, not a claim

// server answers one connection after the other with serve.
func server(t testing.TB, serve func(net.Conn)) zk.Config {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := lis.Accept()
			if err != nil {
				return
			}
			serve(conn)
			conn.Close()
		}
	}()
	t.Cleanup(func() { lis.Close(); <-done })
	return zk.Config{Servers: []string{lis.Addr().String()}, Path: "/a/b"}
}

// request reads one frame; empty at the end.
func request(conn net.Conn) []byte {
	var head [4]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return nil
	}
	body := make([]byte, binary.BigEndian.Uint32(head[:]))
	_, _ = io.ReadFull(conn, body)
	return body
}

func frame(parts ...any) []byte {
	var body []byte
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			body = append(binary.BigEndian.AppendUint32(body, uint32(len(p))), p...)
		case []byte:
			body = append(body, p...)
		case int32:
			body = binary.BigEndian.AppendUint32(body, uint32(p))
		case int64:
			body = binary.BigEndian.AppendUint64(body, uint64(p))
		}
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

// hello is the answer to connect: a session of ten seconds.
func hello() []byte {
	return frame(int32(0), int32(10_000), int64(7), string(make([]byte, 16)), []byte{0})
}

func dial(t testing.TB, cfg zk.Config) (*zk.Conn, error) {
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	return zk.Dial(ctx, cfg)
}

func TestWhatIsNoZooKeeperIsNotTakenForOne(t *testing.T) {
	for name, answer := range map[string]string{
		"HTTP":           "HTTP/1.1 400 Bad Request\r\n\r\n",
		"nothing":        "",
		"no session":     string(frame(int32(0), int32(0), int64(0), string(make([]byte, 16)))),
		"short":          string(frame(int32(0))),
		"cut off":        "\x00\x00\x00\x24\x00",
		"a huge promise": "\xff\xff\xff\xff",
	} {
		t.Run(name, func(t *testing.T) {
			cfg := server(t, func(c net.Conn) {
				request(c)
				_, _ = io.WriteString(c, answer)
			})
			_, err := dial(t, cfg)
			require.ErrorContains(t, err, "ZooKeeper at "+cfg.Servers[0])
		})
	}
}

func TestAServerThatSaysNothingIsGivenUp(t *testing.T) {
	cfg := server(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := zk.Dial(ctx, cfg)
	require.ErrorContains(t, err, "does not answer")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NotContains(t, err.Error(), "\n")
}

// What is wrong with each server is one line of a log.
func TestNoServerAnswers(t *testing.T) {
	_, err := dial(t, zk.Config{Servers: []string{"127.0.0.1:1", "127.0.0.1:2"}, Path: "/a"})
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	for _, server := range []string{"ZooKeeper at 127.0.0.1:1: ", "ZooKeeper at 127.0.0.1:2: "} {
		require.ErrorContains(t, err, server)
	}
	require.NotContains(t, err.Error(), "\n")
}

func TestTheNextServerIsTried(t *testing.T) {
	cfg := server(t, func(c net.Conn) {
		request(c)
		_, _ = c.Write(hello())
		_, _ = io.Copy(io.Discard, c)
	})
	cfg.Servers = append(cfg.Servers, "127.0.0.1:1", "127.0.0.1:2", "nowhere.invalid:2181")
	c, err := dial(t, cfg)
	require.NoError(t, err)
	require.Equal(t, cfg.Servers[0], c.Server())
	cut(c)
}

// cut closes without the second that a server has to answer: it never will.
func cut(c *zk.Conn) { _ = c.Close() }

// head is the beginning of the answer to the first request.
func head(xid, code int32) []byte { return frame(xid, int64(1), code)[4:] }

func TestAnswersThatAreWrongEndTheCallOrTheConnection(t *testing.T) {
	for name, answer := range map[string][]byte{
		"less than its head":         frame(int32(1)),
		"nothing":                    frame(),
		"a list without end":         frame(head(1, 0), int32(-2)),
		"a list longer than it is":   frame(head(1, 0), int32(1<<31-1)),
		"a list of nothing":          frame(head(1, 0)),
		"a string of negative size":  frame(head(1, 0), int32(1), int32(-7)),
		"a string longer than it is": frame(head(1, 0), int32(1), int32(1<<30), []byte("x")),
		"half an event, and the end": frame(head(-1, 0), int32(4)),
		"an answer to nothing":       frame(head(99, 0)),
		"a frame of 4 GiB":           {0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := server(t, func(c net.Conn) {
				request(c)
				_, _ = c.Write(hello())
				request(c)
				_, _ = c.Write(answer)
			})
			c, err := dial(t, cfg)
			require.NoError(t, err)
			defer c.Close()
			var names []string
			_, err = c.Children(t.Context(), "/a/b", func(n string) { names = append(names, n) })
			if name == "a list without end" {
				require.NoError(t, err, "ZooKeeper has lists of negative length, which are none")
			} else {
				require.Error(t, err)
			}
			require.Empty(t, names)
			select {
			case <-c.Lost():
				require.ErrorIs(t, c.Err(), zk.ErrLost)
			case <-time.After(bound):
				t.Fatal("the connection is not seen to be over")
			}
		})
	}
}

func TestAHugeAnswerIsReadOver(t *testing.T) {
	cfg := server(t, func(c net.Conn) {
		request(c)
		_, _ = c.Write(hello())
		request(c)
		_, _ = c.Write(frame(head(1, 0), string(make([]byte, 2<<20))))
		request(c)
		_, _ = c.Write(frame(head(2, 0), "small"))
		_, _ = io.Copy(io.Discard, c)
	})
	c, err := dial(t, cfg)
	require.NoError(t, err)
	defer c.Close()
	_, err = c.Get(t.Context(), "/a/b")
	require.ErrorIs(t, err, zk.ErrTooLarge)
	data, err := c.Get(t.Context(), "/a/b")
	require.NoError(t, err)
	require.Equal(t, "small", string(data))
}

// A lost connection ends whatever waits for it, watches too.
func TestALostConnectionIsHeardOf(t *testing.T) {
	end := make(chan struct{})
	cfg := server(t, func(c net.Conn) {
		request(c)
		_, _ = c.Write(hello())
		request(c)
		_, _ = c.Write(frame(head(1, 0), int32(0)))
		<-end
	})
	c, err := dial(t, cfg)
	require.NoError(t, err)
	defer c.Close()
	changed, err := c.Children(t.Context(), "/a/b", func(string) {})
	require.NoError(t, err)
	asked := make(chan error, 1)
	go func() {
		_, err := c.Get(t.Context(), "/a/b")
		asked <- err
	}()
	close(end)
	require.ErrorIs(t, <-asked, zk.ErrLost)
	<-changed
	<-c.Lost()
	late, err := c.Children(t.Context(), "/a/c", func(string) {})
	require.ErrorIs(t, err, zk.ErrLost)
	<-late
}

func TestACallEndsWithItsContext(t *testing.T) {
	cfg := server(t, func(c net.Conn) {
		request(c)
		_, _ = c.Write(hello())
		_, _ = io.Copy(io.Discard, c)
	})
	c, err := dial(t, cfg)
	require.NoError(t, err)
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	_, err = c.Get(ctx, "/a/b")
	require.ErrorIs(t, err, why)
	require.NoError(t, c.Close())
	require.NoError(t, c.Close())
}

func TestCredentialsAndCertificatesThatCannotBeRead(t *testing.T) {
	cfg := zk.Config{Servers: []string{"127.0.0.1:1"}, Path: "/a", User: "u", PasswordFile: filepath.Join(t.TempDir(), "missing")}
	_, err := dial(t, cfg)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func refuses(t *testing.T, err error, says string) {
	t.Helper()
	if says == "" {
		require.NoError(t, err)
	} else {
		require.ErrorContains(t, err, says)
	}
}

// What validate refuses is what no connection would be made with.
func TestFilesThatAreNotSafe(t *testing.T) {
	ca := tlstest.NewCA(t, "prod")
	write := func(text string, mode os.FileMode) string {
		path := filepath.Join(t.TempDir(), "password")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		require.NoError(t, os.Chmod(path, mode))
		return path
	}
	good := ca.Files(t, tlsconf.RoleStorage, "n1")
	expired := ca.Sign(t, &x509.Certificate{NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)})
	open := ca.Files(t, tlsconf.RoleStorage, "n1")
	require.NoError(t, os.Chmod(open.Key, 0o644))
	for name, tt := range map[string]struct {
		password      string
		files         tlsconf.Files
		wrong, broken string
	}{
		"all is well":                  {write("p\n", 0o640), good, "", ""},
		"a password others can read":   {write("p\n", 0o644), good, "0644", ""},
		"a password others can change": {write("p\n", 0o666), good, "0666", ""},
		"an empty password":            {write("\n", 0o600), good, "empty", ""},
		"an expired certificate":       {write("p", 0o600), expired, "", "expired"},
		"a key others can read":        {write("p", 0o600), open, "", "0644"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := zk.Config{
				Servers: []string{"127.0.0.1:1"}, Path: "/a", User: "u", PasswordFile: tt.password,
				CAFile: tt.files.CA, CertFile: tt.files.Cert, KeyFile: tt.files.Key,
			}
			password, tls := cfg.Files()
			refuses(t, password, tt.wrong)
			refuses(t, tls, tt.broken)
		})
	}
	password, _ := zk.Config{User: "u"}.Files()
	require.ErrorContains(t, password, "no password")
}

func TestCheck(t *testing.T) {
	good := zk.Config{Servers: []string{"a:1", "[::1]:2"}, Path: "/discovery/prod/logd"}
	require.NoError(t, good.Check())
	for _, servers := range [][]string{nil, {"a"}, {":1"}, {"a:"}} {
		bad := good
		bad.Servers = servers
		require.Error(t, bad.Check(), servers)
	}
	for _, path := range []string{"", "/", "a", "/a/", "//a", "/a//b", "/./a", "/a/..", "/a b", "/\x00", "/é"} {
		bad := good
		bad.Path = path
		require.Error(t, bad.Check(), path)
	}
}

func FuzzAnswers(f *testing.F) {
	f.Add(frame(head(1, 0), int32(1), "member_0000000000"))
	f.Add(frame(head(-1, 0), int32(4), int32(3), "/a/b"))
	f.Add(frame(head(1, -101)))
	f.Add(frame(head(1, 0), int32(1<<31-1)))
	answers := make(chan []byte, 1) // capacity 1: that of the next connection
	cfg := server(f, func(c net.Conn) {
		request(c)
		_, _ = c.Write(hello())
		request(c)
		_, _ = c.Write(<-answers)
	})
	f.Fuzz(func(t *testing.T, bytes []byte) {
		answers <- bytes
		c, err := dial(t, cfg)
		require.NoError(t, err)
		_, _ = c.Children(t.Context(), "/a/b", func(string) {})
		cut(c)
	})
}

func FuzzMember(f *testing.F) {
	f.Add([]byte(`{"serviceEndpoint":{"host":"a","port":8400},"additionalEndpoints":{},"status":"ALIVE"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := zk.ParseMember(data)
		if err != nil {
			return
		}
		addr, err := m.Addr()
		require.NoError(t, err)
		_, _, err = net.SplitHostPort(addr)
		require.NoError(t, err)
	})
}

func TestMembersAreWhatFinagleWrites(t *testing.T) {
	m, err := zk.NewMember("node1.example.net:8400")
	require.NoError(t, err)
	data, err := m.Data()
	require.NoError(t, err)
	require.Equal(t, `{"serviceEndpoint":{"host":"node1.example.net","port":8400},"additionalEndpoints":{},"status":"ALIVE"}`, string(data))
	again, err := zk.ParseMember(data)
	require.NoError(t, err)
	require.Equal(t, m, again)
	for _, addr := range []string{"", "a", "a:0", "a:x", ":8400", "a:70000"} {
		_, err := zk.NewMember(addr)
		require.Error(t, err, addr)
	}
}
