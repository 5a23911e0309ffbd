package membership

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/hashicorp/serf/serf"
)

// A node that came back at another address is met by what others remember: that it
// is alive at the old one. For Serf that is two processes with one name, and the one
// that fewer members know ends. So what is said of us at another address is kept
// from it, until a process has answered there to our id: then there are two, and
// Serf decides, or where UDP is blocked what the others tell over RPC. Where there is
// none, the others find the old address dead within seconds, and take the new one.

// Claim is another address where others know our id.
type Claim struct {
	Addr    string // ip:port of gossip
	RPCAddr string // host:port, as it is said there; empty: nothing is
}

// Answer is who answers, over RPC, at the place of a Claim.
type Answer int

// What Ask answers.
const (
	NoAnswer Answer = iota // nobody, or another member, or nobody knows
	Myself                 // this process: the old address still leads to it
	Another                // another process, with our id
)

// claim is what gossip says of our id. Its error keeps it from Serf.
func (g *Gossip) claim(c Claim) error {
	if c.Addr == g.own {
		return nil
	}
	if rival := g.rival.Load(); rival != nil && *rival == c.Addr {
		return nil
	}
	select {
	case g.claimed <- c:
	default: // another is being looked at; it is said again
	}
	return fmt.Errorf("%s is at %s, and not at %s any more", g.id, g.own, c.Addr)
}

const (
	// pings is how often an address is tried before no gossip is there.
	pings = 5
	// askFor is how long an answer over RPC is waited for, and so long nobody is asked
	// again where there was none: no tick of keepPlace comes through in between.
	askFor = 2 * time.Second
)

// How a node that moved makes itself known: those that have it at its old address do
// not talk to it, so it talks to them, until they have found the old one dead. That
// takes a few seconds, and while they suspect it nothing is said of it here.
const (
	introduceEvery = time.Second
	introduceFor   = 10 * time.Second // after the last that knew the old address
	introduceTo    = 16               // members a time; they tell the others
)

// keepPlace looks who is at the addresses where others know our id, and has them know
// ours.
func (g *Gossip) keepPlace(ctx context.Context) {
	told := ""
	var until time.Time // introduce so long
	tick := time.NewTimer(0)
	<-tick.C
	defer tick.Stop()
	var look lookout
	for {
		select {
		case c := <-g.claimed:
			there, serfs := look.at(ctx, g, c)
			news := c.Addr != told
			told = c.Addr
			switch there {
			case Another:
				if news {
					g.log.Warn("another process has this node's id", "node", g.id, "there", c.Addr, "here", g.own)
				}
				if serfs {
					g.rival.Store(&c.Addr)
					// It is told again by whoever knows it.
					g.introduce(c.Addr)
				} else if g.concede(ctx, c) {
					return
				}
				continue
			case Myself:
				if news {
					g.log.Info("others know this node at another address, which leads here too", "node", g.id, "there", c.Addr, "here", g.own)
				}
				continue
			case NoAnswer:
			}
			if news {
				g.log.Info("others remember this node at another address", "node", g.id, "old", c.Addr, "new", g.own)
			}
			until = time.Now().Add(introduceFor)
			tick.Reset(introduceEvery)
		case <-tick.C:
			var to []string
			for _, m := range g.serf.Members() {
				if m.Name != g.id && m.Status == serf.StatusAlive && len(to) < introduceTo {
					to = append(to, net.JoinHostPort(m.Addr.String(), strconv.Itoa(int(m.Port))))
				}
			}
			g.introduce(to...)
			if time.Now().Before(until) {
				tick.Reset(introduceEvery)
			}
		case <-g.closing:
			return
		case <-ctx.Done():
			return
		}
	}
}

// introduce exchanges all that is known with the members at these addresses.
func (g *Gossip) introduce(to ...string) {
	if len(to) == 0 {
		return
	}
	if _, err := g.tryJoin(to); err != nil {
		g.log.Debug("join failed", "addresses", to, "err", err)
	}
}

// lookout finds out who is at a place. It is keepPlace's.
type lookout struct {
	empty string    // where nobody answered over RPC
	until time.Time // so long nobody is asked there again
}

// at tells who is there. Where that is another process and its gossip answers over UDP,
// Serf can decide which of the two goes on: its vote needs UDP, and without any answer
// it ends both.
func (l *lookout) at(ctx context.Context, g *Gossip, c Claim) (_ Answer, serfs bool) {
	gossips := g.answersAt(ctx, c.Addr)
	if g.ask == nil || c.RPCAddr == "" {
		if gossips {
			return Another, true
		}
		return NoAnswer, false
	}
	if !gossips && l.empty == c.Addr && time.Now().Before(l.until) {
		return NoAnswer, false
	}
	asking, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	switch there := g.ask(asking, c); {
	case there == Myself:
		return Myself, false
	case gossips:
		return Another, true
	case there == Another:
		return Another, false
	}
	l.empty, l.until = c.Addr, time.Now().Add(askFor)
	return NoAnswer, false
}

// concede ends gossip, and so this process, when the others know the one at c rather
// than us. When they do not, it is for the other one to go: it asks them too.
func (g *Gossip) concede(ctx context.Context, c Claim) bool {
	if g.outvoted == nil {
		return false
	}
	asking, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	if !g.outvoted(asking, c) {
		return false
	}
	g.log.Error("the others know the other process by this node's id; this one ends", "node", g.id, "there", c.Addr, "here", g.own)
	if err := g.serf.Shutdown(); err != nil {
		g.log.Warn("gossip did not end cleanly", "err", err)
	}
	return true
}

// answersAt says whether a process with our id gossips there over UDP. A process with
// another id does not answer.
func (g *Gossip) answersAt(ctx context.Context, addr string) bool {
	udp, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return false
	}
	for range pings {
		if ctx.Err() != nil {
			return false
		}
		if _, err := g.serf.Memberlist().Ping(g.id, udp); err == nil {
			return true
		}
	}
	return false
}
