// Package http2test is for tests of what a gRPC server does with clients that no gRPC
// library would make: that open more calls than they may, ping without end, or send
// headers of any size.
package http2test

import (
	"bytes"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Conn is such a client. Every method fails the test when the connection fails it.
type Conn struct {
	t *testing.T
	net.Conn
	*http2.Framer
	last uint32 // stream
}

// Connect opens a connection and says what an HTTP/2 client says first.
func Connect(t *testing.T, addr string, bound time.Duration) *Conn {
	t.Helper()
	c := Dial(t, addr, bound)
	c.Hello()
	return c
}

// Dial opens a connection, which has bound for all that the test does with it, and says
// nothing.
func Dial(t *testing.T, addr string, bound time.Duration) *Conn {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
	require.NoError(t, err)
	return Over(t, conn, bound)
}

// Over is Dial with a connection that there is already.
func Over(t *testing.T, conn net.Conn, bound time.Duration) *Conn {
	t.Helper()
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(bound)))
	f := http2.NewFramer(conn, conn)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	return &Conn{t: t, Conn: conn, Framer: f}
}

// Hello says what an HTTP/2 client says first.
func (c *Conn) Hello() {
	c.t.Helper()
	_, err := c.Write([]byte(http2.ClientPreface))
	require.NoError(c.t, err)
	require.NoError(c.t, c.WriteSettings())
}

// Headers is the block of a call: names and values in turn.
func Headers(method string, more ...string) []byte {
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	pairs := append([]string{
		":method", "POST", ":scheme", "http", ":path", method, ":authority", "x",
		"content-type", "application/grpc", "te", "trailers",
	}, more...)
	for i := 0; i < len(pairs); i += 2 {
		_ = enc.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]}) // a buffer takes all
	}
	return b.Bytes()
}

// Call begins a call, and answers its stream.
func (c *Conn) Call(method string, more ...string) uint32 {
	c.t.Helper()
	c.last = max(c.last+2, 1)
	if c.last%2 == 0 {
		c.last--
	}
	block := Headers(method, more...)
	const frame = 16 << 10
	first := block[:min(len(block), frame)]
	rest := block[len(first):]
	err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: c.last, BlockFragment: first, EndHeaders: len(rest) == 0})
	for err == nil && len(rest) > 0 {
		next := rest[:min(len(rest), frame)]
		rest = rest[len(next):]
		err = c.WriteContinuation(c.last, len(rest) == 0, next)
	}
	require.NoError(c.t, err)
	return c.last
}

// Until reads frames up to one that is wanted.
func (c *Conn) Until(what string, want func(http2.Frame) bool) {
	c.t.Helper()
	for {
		f, err := c.ReadFrame()
		require.NoError(c.t, err, "waiting for %s", what)
		if want(f) {
			return
		}
	}
}

// IsClosed reads to the end, which must not be the test's own.
func (c *Conn) IsClosed() {
	c.t.Helper()
	b := make([]byte, 4096)
	for {
		if _, err := c.Read(b); err != nil {
			var late net.Error
			require.False(c.t, errors.As(err, &late) && late.Timeout(), "the connection was kept")
			return
		}
	}
}

// PingsTooMuch sends pings without a pause, until it is told to go away for that.
func (c *Conn) PingsTooMuch() {
	c.t.Helper()
	for range 10 {
		if c.WritePing(false, [8]byte{}) != nil {
			break
		}
	}
	c.GoesAway(http2.ErrCodeEnhanceYourCalm)
	c.IsClosed()
}

// GoesAway reads up to a GOAWAY, which must give that reason.
func (c *Conn) GoesAway(why http2.ErrCode) {
	c.t.Helper()
	c.Until("GOAWAY", func(f http2.Frame) bool {
		g, ok := f.(*http2.GoAwayFrame)
		if ok {
			require.Equal(c.t, why, g.ErrCode)
		}
		return ok
	})
}

// EndlessHeaders begins a call on a stream whose headers never end, until the connection
// is closed for it.
func (c *Conn) EndlessHeaders(stream uint32) {
	c.t.Helper()
	require.NoError(c.t, c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: Headers("/x.Y/Z")}))
	part := Headers("/x.Y/Z", "x-big", strings.Repeat("x", 15<<10))
	for range 1000 {
		if c.WriteContinuation(stream, false, part) != nil {
			break
		}
	}
	c.IsClosed()
}
