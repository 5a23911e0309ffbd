package main

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
)

// hostiles starts a client that means harm. What it is told is of no interest.
func (s *soak) hostiles(do func(string, func(ctx, load context.Context) error)) {
	do("hostile client", func(_, load context.Context) error {
		for load.Err() == nil {
			attack := attacks[rand.IntN(len(attacks))]
			attack(load, s.proxy.Addr)
			s.counts.hostile.Add(1)
			wait(load, rand.N(4*time.Second))
		}
		return nil
	})
}

var attacks = []func(ctx context.Context, addr string){
	// Many connections that say nothing, or half of what they should.
	func(ctx context.Context, addr string) {
		for i := range 200 {
			if c := connect(ctx, addr); c != nil {
				defer c.Close()
				_, _ = c.Write([]byte(http2.ClientPreface)[:i%len(http2.ClientPreface)])
			}
		}
		wait(ctx, 2*time.Second)
	},
	// Nonsense, before the preface and after it.
	func(ctx context.Context, addr string) {
		for _, say := range []string{"", http2.ClientPreface} {
			if c := connect(ctx, addr); c != nil {
				_, _ = c.Write([]byte(say + strings.Repeat("\x00\xffGET / HTTP/1.1\r\n", 4096)))
				_, _ = io.Copy(io.Discard, c)
				_ = c.Close()
			}
		}
	},
	// Calls that are reset at once.
	speak(func(ctx context.Context, f *http2.Framer, c net.Conn) {
		for i := range uint32(2000) {
			if call(f, 2*i+1, 0) != nil || f.WriteRSTStream(2*i+1, http2.ErrCodeCancel) != nil {
				return
			}
		}
	}),
	// More streams than there may be, of which nothing is ever read.
	speak(func(ctx context.Context, f *http2.Framer, c net.Conn) {
		for i := range uint32(1500) {
			if call(f, 2*i+1, 0) != nil {
				return
			}
		}
		wait(ctx, 3*time.Second)
	}),
	// Headers beyond the limit, and a flood of pings.
	speak(func(ctx context.Context, f *http2.Framer, c net.Conn) {
		for i := range uint32(20) {
			if call(f, 2*i+1, 60<<10) != nil {
				return
			}
		}
		for f.WritePing(false, [8]byte{}) == nil && ctx.Err() == nil {
		}
	}),
	// A message that never comes to its end.
	speak(func(ctx context.Context, f *http2.Framer, c net.Conn) {
		if open(f, 1, 0) == nil {
			_ = f.WriteData(1, false, []byte{0, 0, 15, 0, 0, 'x'})
			wait(ctx, 2*time.Second)
		}
	}),
}

func connect(ctx context.Context, addr string) net.Conn {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil
	}
	_ = c.SetDeadline(time.Now().Add(15 * time.Second))
	return c
}

// speak is an attack by a client that has said hello. It reads what it is told,
// and looks at none of it.
func speak(attack func(context.Context, *http2.Framer, net.Conn)) func(context.Context, string) {
	return func(ctx context.Context, addr string) {
		c := connect(ctx, addr)
		if c == nil {
			return
		}
		read := make(chan struct{})
		go func() { // joined below
			defer close(read)
			_, _ = io.Copy(io.Discard, c)
		}()
		defer func() { _ = c.Close(); <-read }()
		f := http2.NewFramer(c, c)
		if _, err := c.Write([]byte(http2.ClientPreface)); err == nil && f.WriteSettings() == nil {
			attack(ctx, f, c)
		}
	}
}

// open begins a ConsumeStream, with so many bytes of headers too many.
func open(f *http2.Framer, id uint32, extra int) error {
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	for _, h := range []hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":authority", Value: "x"},
		{Name: ":path", Value: logv1.Log_ConsumeStream_FullMethodName}, {Name: "content-type", Value: "application/grpc"},
		{Name: "te", Value: "trailers"}, {Name: "x-more", Value: strings.Repeat("x", extra)},
	} {
		_ = enc.WriteField(h) // a buffer takes all
	}
	const frame = 16 << 10
	block := b.Bytes()
	first := block[:min(len(block), frame)]
	rest := block[len(first):]
	err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: first, EndHeaders: len(rest) == 0})
	for err == nil && len(rest) > 0 {
		next := rest[:min(len(rest), frame)]
		rest = rest[len(next):]
		err = f.WriteContinuation(id, len(rest) == 0, next)
	}
	return err
}

// call is a whole ConsumeStream from offset 0.
func call(f *http2.Framer, id uint32, extra int) error {
	if err := open(f, id, extra); err != nil {
		return err
	}
	return f.WriteData(id, true, make([]byte, 5))
}
