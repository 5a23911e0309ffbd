package membership

import (
	"context"
	"fmt"
	"log"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/logd-io/logd/pkg/internal/netlimit"
)

// transport is memberlist's own, with connections that end when gossip does:
// its dials and exchanges would otherwise hold Close for up to ten seconds.
type transport struct {
	*memberlist.NetTransport
	ctx    context.Context //nolint:containedctx // ends the dials; memberlist's interface has none
	cancel context.CancelFunc

	accepted chan net.Conn           // what StreamCh answers; unbuffered, as memberlist's own
	packets  chan *memberlist.Packet // what PacketCh answers; unbuffered, as memberlist's own
	born     time.Time
	heard    atomic.Int64   // when the last packet came, in nanoseconds after born; 0: none did
	deaf     atomic.Bool    // packets are thrown away. For tests
	passing  sync.WaitGroup // limit and listen
	down     chan struct{}  // closed by Shutdown when nothing is accepted any more
	downOnce sync.Once

	mu    sync.Mutex
	open  map[net.Conn]struct{} // dialled and not yet closed; guarded by mu
	ended bool                  // guarded by mu; once true, open stays empty
}

// listen binds TCP and UDP on the same port. For port 0 the kernel picks one
// for TCP that may be taken for UDP, so that is tried a few times.
func listen(ip net.IP, port int, logger *log.Logger) (*transport, error) {
	tries := 1
	if port == 0 {
		tries = 10
	}
	var err error
	for range tries {
		var nt *memberlist.NetTransport
		nt, err = memberlist.NewNetTransport(&memberlist.NetTransportConfig{
			BindAddrs: []string{ip.String()}, BindPort: port, Logger: logger,
		})
		if err == nil {
			ctx, cancel := context.WithCancel(context.Background())
			t := &transport{
				NetTransport: nt, ctx: ctx, cancel: cancel,
				born: time.Now(), accepted: make(chan net.Conn), packets: make(chan *memberlist.Packet),
				down: make(chan struct{}), open: map[net.Conn]struct{}{},
			}
			t.passing.Go(t.limit) // both end with down; Shutdown waits for them
			t.passing.Go(t.hear)
			return t, nil
		}
		if !strings.Contains(err.Error(), "address already in use") {
			break
		}
	}
	return nil, err
}

// limit hands on what was accepted. Connections are bounded, and the oldest goes:
// anybody can open one, the key is asked for only when it speaks.
func (t *transport) limit() {
	fresh := netlimit.NewNewest(netlimit.Aside(netlimit.Files()), nil)
	for {
		select {
		case c := <-t.NetTransport.StreamCh():
			c = fresh.Add(c)
			select {
			case t.accepted <- c:
			case <-t.ctx.Done():
				_ = c.Close() // nobody has read from it
			}
		case <-t.down: // not earlier: NetTransport's Shutdown waits until what it accepted is taken
			return
		}
	}
}

// hear hands on packets, and notes when they came.
func (t *transport) hear() {
	for {
		select {
		case p := <-t.NetTransport.PacketCh():
			if t.deaf.Load() {
				continue
			}
			t.heard.Store(int64(time.Since(t.born)))
			select {
			case t.packets <- p:
			case <-t.ctx.Done():
			}
		case <-t.down: // not earlier, as with limit
			return
		}
	}
}

// packetAt is when the last packet came, or when the first could have.
func (t *transport) packetAt() time.Time { return t.born.Add(time.Duration(t.heard.Load())) }

func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

func (t *transport) StreamCh() <-chan net.Conn { return t.accepted }

func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	dialer := net.Dialer{Timeout: timeout}
	conn, err := dialer.DialContext(t.ctx, "tcp", a.Addr)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		_ = conn.Close() // nobody has written to it
		return nil, fmt.Errorf("dial %s: %w", a.Addr, net.ErrClosed)
	}
	c := &dialled{Conn: conn, t: t}
	t.open[c] = struct{}{}
	return c, nil
}

// end makes dials and exchanges in progress fail, and all later ones.
func (t *transport) end() {
	t.cancel()
	t.mu.Lock()
	open := t.open
	t.open, t.ended = map[net.Conn]struct{}{}, true
	t.mu.Unlock()
	for c := range open {
		_ = c.Close() // whoever uses it gets the error
	}
}

func (t *transport) Shutdown() error {
	t.end()
	err := t.NetTransport.Shutdown()
	t.downOnce.Do(func() { close(t.down) })
	t.passing.Wait()
	return err
}

// dialled forgets itself when closed.
type dialled struct {
	net.Conn
	t *transport
}

func (c *dialled) Close() error {
	c.t.mu.Lock()
	delete(c.t.open, c)
	c.t.mu.Unlock()
	return c.Conn.Close()
}
