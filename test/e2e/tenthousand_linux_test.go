//go:build system

package e2e_test

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/tlsconf"
	"github.com/logd-io/logd/test/harness"
)

// figures logs what the proxy takes.
func (w *world) figures(when string) (goroutines, files, resident float64) {
	w.t.Helper()
	goroutines, files = w.gauge(w.proxy.Admin, "go_goroutines"), w.gauge(w.proxy.Admin, "process_open_fds")
	resident = w.gauge(w.proxy.Admin, "process_resident_memory_bytes")
	w.t.Logf("%s: %.0f connections, %.0f calls, %.0f goroutines, %.0f files, %.0f MiB resident, %.0f MiB on the heap", when,
		w.gauge(w.proxy.Admin, "logproxy_connections"), w.gauge(w.proxy.Admin, "logproxy_calls"), goroutines, files,
		resident/(1<<20), w.gauge(w.proxy.Admin, "go_memstats_heap_alloc_bytes")/(1<<20))
	return goroutines, files, resident
}

// idle is a connection of a client that has said hello and answers pings, until it
// is closed.
func idle(ctx context.Context, addr string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return c, greet(c)
}

// greet says hello, and has the server's; else it closes the connection.
func greet(c net.Conn) error {
	hello := append([]byte(http2.ClientPreface), 0, 0, 0, byte(http2.FrameSettings), 0, 0, 0, 0, 0)
	_, err := c.Write(hello)
	if err == nil {
		err = answer(c) // we are in
	}
	if err != nil {
		_ = c.Close()
	}
	return err
}

// answer reads a frame, and acknowledges what asks for it.
func answer(c net.Conn) error {
	var head [9]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return err
	}
	body := make([]byte, int(head[0])<<16|int(binary.BigEndian.Uint16(head[1:])))
	if _, err := io.ReadFull(c, body); err != nil {
		return err
	}
	kind := http2.FrameType(head[3])
	if kind != http2.FramePing && kind != http2.FrameSettings || head[4] != 0 {
		return nil
	}
	if kind == http2.FrameSettings {
		body = nil
	}
	head[2], head[4] = byte(len(body)), 1
	_, err := c.Write(append(head[:], body...))
	return err
}

// Ten thousand connections that do nothing, twice a thousand that say nothing, ten
// thousand streams, and a client that wants ten thousand on one connection: those
// who work see nothing of it, the leader may be killed, and when they have gone
// nothing of them is left.
func TestSystemTenThousand(t *testing.T) {
	const many = 10_000
	w := prepare(t, nil, func(o *harness.Options) {
		o.ProxyConfig = "limits {\n max_calls = 11000\n}\nproduce {\n hold_timeout = \"60s\"\n}\n"
	})
	// The soft limit is that of most shells; the program raises it to the hard one,
	// half of which is for connections.
	w.proxy.Args = append([]string{"-c", `ulimit -S -n 1024 && exec "$0" "$@"`, w.proxy.Path}, w.proxy.Args...)
	w.proxy.Path = "/bin/sh"
	require.NoError(t, w.Start())
	require.NoError(t, w.Ready(w.ctx))
	tr := w.load()
	tr.more(200)
	goroutines, files, _ := w.figures("at the start")
	idlers := min(many, int(w.gauge(w.proxy.Admin, "logproxy_connections_limit"))-50)
	if idlers < many {
		t.Logf("the hard limit of open files leaves room for %d connections, not %d", idlers, many)
	}

	var mu sync.Mutex
	var held []net.Conn
	var answering, dialing sync.WaitGroup
	for range 50 {
		dialing.Go(func() {
			for range idlers / 50 {
				c, err := idle(w.ctx, w.proxy.Addr)
				if err != nil {
					t.Error(err)
					return
				}
				answering.Go(func() {
					for answer(c) == nil {
					}
				})
				mu.Lock()
				held = append(held, c)
				mu.Unlock()
			}
		})
	}
	dialing.Wait()
	w.until("all are there", func() error {
		if n := w.gauge(w.proxy.Admin, "logproxy_connections"); n < float64(idlers/50*50) {
			return fmt.Errorf("%.0f connections", n)
		}
		return nil
	})
	_, open, resident := w.figures(fmt.Sprintf("with %d idle connections", idlers))
	require.Less(t, open, float64(idlers+200))
	if !raceEnabled {
		require.Less(t, resident, float64(idlers*64<<10+200<<20), "64 KiB a connection")
	}
	tr.more(500)

	var silent []net.Conn
	for range 2000 {
		c, err := new(net.Dialer).DialContext(w.ctx, "tcp", w.proxy.Addr)
		require.NoError(t, err)
		silent = append(silent, c)
	}
	require.LessOrEqual(t, w.gauge(w.proxy.Admin, "logproxy_connections_unknown"), 1024.0)
	w.figures("with 2,000 silent ones more")
	tr.more(500)
	for _, c := range append(silent, held...) {
		_ = c.Close()
	}
	answering.Wait()
	tr.halt()

	// Ten thousand tails, through ten connections; then a leader less.
	next := w.logEnd("client")
	reached := make(chan error, many)
	var conns []*grpc.ClientConn
	ctx, cancel := context.WithCancel(w.ctx)
	defer cancel()
	for range 10 {
		conn := w.naive()
		conns = append(conns, conn)
		for range many / 10 {
			go func() { // ends with ctx; all are received from below
				reached <- harness.Tail(ctx, conn, next, func(*logv1.Record) bool { return false })
			}()
		}
	}
	w.until("all streams are there", func() error {
		if n := w.gauge(w.proxy.Admin, "logproxy_calls"); n < many {
			return fmt.Errorf("%.0f calls", n)
		}
		return nil
	})
	w.figures("with 10,000 tails")
	// One client wants as many more on one connection.
	greedy := w.naive()
	var wants sync.WaitGroup
	wanting, enough := context.WithCancel(ctx)
	for range many {
		wants.Go(func() { _ = harness.Tail(wanting, greedy, next+1000, func(*logv1.Record) bool { return true }) })
	}
	w.until("it gets what one connection may have, and the proxy may spare", func() error {
		if n := w.gauge(w.proxy.Admin, "logproxy_calls"); n < many+900 {
			return fmt.Errorf("%.0f calls", n)
		}
		return nil
	})
	require.LessOrEqual(t, w.gauge(w.proxy.Admin, "logproxy_calls"), 11_000.0)
	w.figures("and a client that wants 10,000 on one connection")
	enough()
	wants.Wait()
	w.until("the proxy has seen them go", func() error {
		if n := w.gauge(w.proxy.Admin, "logproxy_calls"); n > many+100 {
			return fmt.Errorf("%.0f calls", n)
		}
		return nil
	})

	leader := w.leader()
	require.NoError(t, leader.Kill())
	begun := time.Now()
	_, err := logv1.NewLogClient(w.naive()).Produce(w.ctx, &logv1.ProduceRequest{Record: &logv1.Record{Value: harness.Value(tr.Produced(), nil)}})
	require.NoError(t, err)
	t.Logf("%s until a produce was acknowledged, the leader killed under 10,000 tails", time.Since(begun).Round(time.Millisecond))
	for range many {
		require.NoError(t, <-reached)
	}
	t.Logf("%s until all of them had it", time.Since(begun).Round(time.Millisecond))
	for _, conn := range conns {
		require.NoError(t, conn.Close())
	}
	require.NoError(t, greedy.Close())
	require.NoError(t, leader.Process.Start())
	require.NoError(t, w.NodeReady(w.ctx, leader))
	w.until("nothing is left of them", func() error {
		g, f := w.gauge(w.proxy.Admin, "go_goroutines"), w.gauge(w.proxy.Admin, "process_open_fds")
		if g > goroutines+50 || f > files+10 {
			return fmt.Errorf("%.0f goroutines and %.0f files, %.0f and %.0f before", g, f, goroutines, files)
		}
		return nil
	})
	w.figures("when they have gone")
	require.NoError(t, tr.Err())
	require.Zero(t, tr.Failed())
}

// Ten thousand connections of clients that do nothing, ten thousand that say nothing, and
// ten thousand that begin a handshake and do not end it, at the leader itself: it keeps as
// many as it has room for, others get in, and the cluster goes on as if nothing was.
func TestSystemTenThousandAtANode(t *testing.T) {
	const many = 10_000
	w := start(t)
	tr := w.load()
	tr.more(200)
	n := w.leader()
	term := w.stats(n).GetTerm()
	gauge := func(name string) float64 { return w.gauge(n.Admin, name) }
	figures := func(when string) (files, resident float64) {
		files, resident = gauge("process_open_fds"), gauge("process_resident_memory_bytes")
		t.Logf("%s: %.0f connections of clients, %.0f unknown, %.0f goroutines, %.0f files, %.0f MiB resident", when,
			gauge(`logd_connections{role="client"}`), gauge("logd_connections_unknown"), gauge("go_goroutines"), files, resident/(1<<20))
		return files, resident
	}
	before, _ := figures("at the start")

	require.NoError(t, w.AddCert(tlsconf.RoleClient, "other"))
	var confs []*tls.Config // one client has half of the room
	for _, name := range []string{"client", "other"} {
		conf, err := w.TLS(name, n, tlsconf.ALPNgRPC)
		require.NoError(t, err)
		confs = append(confs, conf)
	}
	room := int(gauge(`logd_connections_limit{role="client"}`))
	var mu sync.Mutex
	var held []net.Conn
	refused := 0
	var answering, dialing sync.WaitGroup
	for i := range 50 {
		conf := confs[i%len(confs)]
		dialing.Go(func() {
			for range many / 50 {
				plain, err := new(net.Dialer).DialContext(w.ctx, "tcp", n.RPC)
				if err != nil {
					t.Error(err)
					return
				}
				c := tls.Client(plain, conf)
				if greet(c) != nil {
					mu.Lock()
					refused++ // at once, and not left to wait
					mu.Unlock()
					continue
				}
				answering.Go(func() {
					for answer(c) == nil {
					}
				})
				mu.Lock()
				held = append(held, c)
				mu.Unlock()
			}
		})
	}
	dialing.Wait()
	_, resident := figures(fmt.Sprintf("with %d that asked to stay, room for %d, refused %d", many, room, refused))
	require.LessOrEqual(t, gauge(`logd_connections{role="client"}`), float64(room))
	require.Equal(t, many, len(held)+refused)
	require.GreaterOrEqual(t, len(held), min(many, room)-100)
	if !raceEnabled {
		require.Less(t, resident, float64(len(held)*96<<10+300<<20), "96 KiB a connection")
	}
	tr.more(500)
	// Operators and proxies have places of their own.
	require.Equal(t, term, w.stats(n).GetTerm())

	for what, say := range map[string][]byte{
		"say nothing":       nil,
		"begin a handshake": {22, 3, 1, 1, 0}, // a record of 256 bytes, of which none comes
	} {
		var silent []net.Conn
		for range many {
			c, err := new(net.Dialer).DialContext(w.ctx, "tcp", n.RPC)
			if err != nil {
				break // its queue is full: as good as refused
			}
			_, _ = c.Write(say) // it may be closed already
			silent = append(silent, c)
		}
		files, _ := figures(fmt.Sprintf("with %d more that %s", len(silent), what))
		require.LessOrEqual(t, gauge("logd_connections_unknown"), 1024.0)
		require.Less(t, files, before+float64(len(held))+1300)
		tr.more(500)
		require.Equal(t, term, w.stats(n).GetTerm(), "nobody stood for election")
		for _, c := range silent {
			_ = c.Close()
		}
	}
	for _, c := range held {
		_ = c.Close()
	}
	answering.Wait()
	w.until("nothing is left of them", func() error {
		if f := gauge("process_open_fds"); f > before+20 {
			return fmt.Errorf("%.0f files, %.0f before", f, before)
		}
		return nil
	})
	figures("when they have gone")
	tr.halt()
	require.NoError(t, tr.Err())
	require.Zero(t, tr.Failed())
}
