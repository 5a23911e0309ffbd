package proxy_test

import (
	"bytes"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// raw is a client that says what no gRPC library would.
type raw struct {
	t *testing.T
	net.Conn
	*http2.Framer
	last uint32 // stream
}

// connect opens a connection and says what an HTTP/2 client says first.
func connect(t *testing.T, addr string) *raw {
	t.Helper()
	r := rawTo(t, addr)
	_, err := r.Write([]byte(http2.ClientPreface))
	require.NoError(t, err)
	require.NoError(t, r.WriteSettings())
	return r
}

// rawTo opens a connection and says nothing.
func rawTo(t *testing.T, addr string) *raw {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(bound)))
	f := http2.NewFramer(conn, conn)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	return &raw{t: t, Conn: conn, Framer: f}
}

// headers is the block of a call.
func headers(method string, more ...string) []byte {
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

// call begins a call, and answers its stream.
func (r *raw) call(method string, more ...string) uint32 {
	r.t.Helper()
	r.last = max(r.last+2, 1)
	if r.last%2 == 0 {
		r.last--
	}
	block := headers(method, more...)
	const frame = 16 << 10
	first := block[:min(len(block), frame)]
	rest := block[len(first):]
	err := r.WriteHeaders(http2.HeadersFrameParam{StreamID: r.last, BlockFragment: first, EndHeaders: len(rest) == 0})
	for err == nil && len(rest) > 0 {
		next := rest[:min(len(rest), frame)]
		rest = rest[len(next):]
		err = r.WriteContinuation(r.last, len(rest) == 0, next)
	}
	require.NoError(r.t, err)
	return r.last
}

// until reads frames up to one that is wanted.
func (r *raw) until(what string, want func(http2.Frame) bool) {
	r.t.Helper()
	for {
		f, err := r.ReadFrame()
		require.NoError(r.t, err, "waiting for %s", what)
		if want(f) {
			return
		}
	}
}

// isClosed reads to the end, which must not be the test's own.
func (r *raw) isClosed() {
	r.t.Helper()
	b := make([]byte, 4096)
	for {
		if _, err := r.Read(b); err != nil {
			var late net.Error
			require.False(r.t, errors.As(err, &late) && late.Timeout(), "the connection was kept")
			return
		}
	}
}
