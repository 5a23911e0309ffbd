package forward

import (
	"context"
	"maps"
	"net"

	"google.golang.org/grpc/peer"
)

// client is one source of records: the unary produces that one connection brings to
// one appender, or one ProduceStream. It has its own queue, so that what others send
// does not stand before its records, and its own share of the bounds.
type client struct {
	// Guarded by the appender's mu.
	waiting opQueue
	start   uint64 // the bytes it has been served, in fairQueue's virtual time
	owed    int    // served, and not in start yet
	slot    int    // its place in fairQueue.line while something waits
	held    load   // its ops without an outcome, waiting or in flight
	most    peak   // bytes held
	hurries bool   // it is in the appender's hurried
	over    bool   // failed or left: nothing of it is sent; never false again
}

// idleClients is how many connections without a record under way an appender
// remembers before it looks for those to forget.
const idleClients = 64

// clientOf is the client of the unary produces that come from a connection. mu is
// held. Those with nothing under way are forgotten by and by, so that there are at
// most about twice as many as ever had something under way at a time.
func (a *appender) clientOf(from net.Addr) *client {
	c := a.clients[from]
	if c != nil {
		return c
	}
	if len(a.clients) >= a.sweepAt {
		maps.DeleteFunc(a.clients, func(_ net.Addr, c *client) bool { return c.held.count == 0 })
		a.sweepAt = 2*len(a.clients) + idleClients
	}
	c = &client{}
	a.clients[from] = c
	return c
}

// connectionOf tells connections apart: gRPC asks a connection for its address once,
// so that each has an address value of its own, whatever it says.
func connectionOf(ctx context.Context) net.Addr {
	if p, ok := peer.FromContext(ctx); ok {
		return p.Addr
	}
	return nil
}
