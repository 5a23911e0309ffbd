package membership

import "errors"

// QueriesOnTheirWay is how many of Serf's queries this member still passes on.
func (g *Gossip) QueriesOnTheirWay() string { return g.serf.Stats()["query_queue"] }

// OpenHeld is Open of a member that takes no event from Serf until release, which
// must be called.
func OpenHeld(cfg Config) (g *Gossip, release func(), err error) {
	held := make(chan struct{})
	g, err = open(cfg, func(g *Gossip) { g.held = held })
	if err != nil {
		close(held)
	}
	return g, func() { close(held) }, err
}

// FillEvents makes events until there is no room for more.
func (g *Gossip) FillEvents() error {
	for range cap(g.events) - len(g.events) {
		if err := g.serf.UserEvent("filler", nil, false); err != nil {
			return err
		}
	}
	return nil
}

// EventsFull is nil when there is no room for an event.
func (g *Gossip) EventsFull() error {
	if len(g.events) < cap(g.events) {
		return errors.New("there is room for events")
	}
	return nil
}

// Deafen throws away what comes over UDP, or no longer.
func (g *Gossip) Deafen(deaf bool) { g.transport.deaf.Store(deaf) }

// SayTags has Serf say tags at once, and answers what Serf thinks of them.
func (g *Gossip) SayTags(t Tags) (ours, serfs error) {
	tags, err := encodeTags(g.role, t)
	if err != nil {
		return err, nil
	}
	return nil, g.serf.SetTags(tags)
}
