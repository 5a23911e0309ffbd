package forward

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/mem"

	"github.com/logd-io/logd/pkg/proxy/route"
)

// undriven is an appender that nobody drives but the test.
func undriven(t *testing.T, batchBytes int) *appender {
	f, err := New(Config{Holder: &route.Holder{}, BatchBytes: batchBytes})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	a := newAppender(f, "p")
	a.running = true
	return a
}

// queues n records of a kilobyte of a connection, or of a lane.
func (a *appender) queues(t *testing.T, from net.Addr, l *lane, n int) {
	t.Helper()
	for range n {
		r := make([]byte, 1000)
		require.NoError(t, a.enqueue(&op{lane: l, rec: r, buf: mem.SliceBuffer(r), size: len(r) + opCost, done: make(chan struct{}, 1)}, from))
	}
}

// sends takes the next batch, for whom there is room, and counts whose records it has.
func (a *appender) sends() map[*client]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	whom := a.room()
	if whom == nobody {
		return nil
	}
	b := a.take(whom, &finished{})
	if b == nil {
		return nil
	}
	b.build(a.producer, a.epoch)
	b.built, b.sent = true, true
	got := map[*client]int{}
	for _, o := range b.ops {
		got[o.client]++
	}
	return got
}

// settles gives the oldest batch in flight its outcome.
func (a *appender) settles() {
	var fin finished
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, o := range a.inflight[0].ops {
		fin.add(o, 0, false, nil)
	}
	a.inflight[0].free()
	a.pop()
	a.f.limit.release(fin.all, fin.streams)
}

type addr struct{ *net.TCPAddr }

func newAddr() addr { return addr{&net.TCPAddr{}} }

func (a *appender) client(from net.Addr) *client { return a.clients[from] }

// Beside a heavy client light ones have places in the window for themselves, and go
// there in turn, whoever came first and with how much. (DESIGN.md F8)
func TestLightClientsTakeTurns(t *testing.T) {
	a := undriven(t, 4<<10)
	heavy, many, one := newAddr(), newAddr(), newAddr()
	a.queues(t, heavy, nil, 300)
	require.Equal(t, map[*client]int{a.client(heavy): 4}, a.sends())
	require.Equal(t, map[*client]int{a.client(heavy): 4}, a.sends())
	a.queues(t, many, nil, 20)
	a.queues(t, one, nil, 1)
	require.Equal(t, map[*client]int{a.client(many): 3, a.client(one): 1}, a.sends())
	require.Equal(t, map[*client]int{a.client(many): 4}, a.sends())
	require.Equal(t, map[*client]int{a.client(many): 4}, a.sends())
	require.Nil(t, a.sends())
	a.settles()
	a.settles()
	a.settles()
	a.settles()
	// Half of the next is for light ones, and the rest is everybody's.
	got := a.sends()
	require.Equal(t, 4, got[a.client(many)]+got[a.client(heavy)])
	require.GreaterOrEqual(t, got[a.client(many)], 2)
}

// Where nobody holds much nobody is light: two batches under way are enough. (DESIGN.md F7)
func TestNobodyIsLightBesideLittle(t *testing.T) {
	a := undriven(t, 0)
	heavy, light := newAddr(), newAddr()
	a.queues(t, heavy, nil, 1)
	require.NotNil(t, a.sends())
	a.queues(t, heavy, nil, 1)
	require.NotNil(t, a.sends())
	a.queues(t, heavy, nil, 20)
	a.queues(t, light, nil, 1)
	require.Nil(t, a.sends())
}

// A client that holds much is not light for having sent nothing of late.
func TestWhoWaitsForLongIsNotLight(t *testing.T) {
	a := undriven(t, 0)
	first, last := newAddr(), newAddr()
	a.queues(t, first, nil, 100)
	a.mu.Lock()
	a.client(first).most = peak{} // it is long ago
	a.mu.Unlock()
	a.queues(t, last, nil, 100)
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.f.now()
	require.False(t, a.light(a.client(first), now))
	a.client(first).held = load{}
	require.True(t, a.light(a.client(first), now))
}

// However many light clients there are, a heavy one has a share of half of each batch.
func TestManyLightClientsStarveNobody(t *testing.T) {
	a := undriven(t, 0)
	heavy, light := newAddr(), make([]addr, 100)
	a.queues(t, heavy, nil, 1000)
	for i := range light {
		light[i] = newAddr()
	}
	had, all := 0, 0
	for range 100 {
		for _, l := range light {
			if c := a.client(l); c == nil || c.held.count == 0 {
				a.queues(t, l, nil, 1)
			}
		}
		got := a.sends()
		require.NotEmpty(t, got)
		had += got[a.client(heavy)]
		for _, n := range got {
			all += n
		}
		a.settles()
	}
	require.GreaterOrEqual(t, had, all/2/(len(light)+1))
}

// A ProduceStream may outlive its appender: with the next it is as light as with the
// last.
func TestALightStreamOutlivesItsAppender(t *testing.T) {
	l := newLane()
	for range 2 {
		a := undriven(t, 4<<10)
		a.queues(t, newAddr(), nil, 300)
		require.NotNil(t, a.sends())
		require.NotNil(t, a.sends())
		a.queues(t, nil, l, 1)
		require.Equal(t, map[*client]int{&l.client: 1}, a.sends())
		for range 3 {
			a.settles()
		}
		a.queues(t, nil, l, 1)
		a.queue.serve(&l.client, 1) // it was its turn anyway
		a.mu.Lock()
		a.calm()
		a.mu.Unlock()
		l.client.held = load{}
	}
}

// What a client held is forgotten in two periods.
func TestPeak(t *testing.T) {
	const period = int64(peakFor)
	var p peak
	p.see(5, 10*period)
	p.see(3, 10*period+1)
	require.EqualValues(t, 5, p.lately(11*period-1))
	p.see(4, 11*period)
	p.see(6, 11*period-1) // late
	require.EqualValues(t, 6, p.lately(11*period))
	p.see(1, 12*period)
	require.EqualValues(t, 6, p.lately(12*period))
	require.EqualValues(t, 1, p.lately(13*period))
	require.Zero(t, p.lately(20*period))
}

// Clients that each wait for an answer make two batches of half of them, not one of
// whoever is back first; a few do not wait for each other. (DESIGN.md F7)
func TestACrowdGathers(t *testing.T) {
	a := undriven(t, 0)
	from := newAddr()
	of := func(n int) map[*client]int { return map[*client]int{a.client(from): n} }
	a.queues(t, from, nil, 1)
	require.Equal(t, of(1), a.sends())
	a.queues(t, from, nil, 1)
	require.Equal(t, of(1), a.sends(), "two are no crowd")
	a.queues(t, from, nil, 30)
	require.Nil(t, a.sends())
	a.settles()
	require.Equal(t, of(30), a.sends())
	a.settles() // the thirty are under way, and the two come back
	a.queues(t, from, nil, 2)
	require.Nil(t, a.sends())
	a.settles()
	require.Equal(t, of(2), a.sends(), "nothing is under way")
	for range 15 {
		a.queues(t, from, nil, 1)
		require.Nil(t, a.sends(), "the others are on their way")
	}
	a.queues(t, from, nil, 1)
	require.Equal(t, of(16), a.sends(), "half of them")
	a.settles()
	a.queues(t, from, nil, 3)
	require.Nil(t, a.sends())
	a.mu.Lock()
	a.crowd = peak{} // it is long ago
	a.mu.Unlock()
	require.Equal(t, of(3), a.sends())
}
