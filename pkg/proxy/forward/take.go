package forward

// peak is the greatest value of late: seen in this period of peakFor, or in the one
// before.
type peak struct {
	period      int64
	now, before int64
}

func (p *peak) see(v, at int64) {
	p.move(at)
	p.now = max(p.now, v)
}

func (p *peak) lately(at int64) int64 {
	p.move(at)
	return max(p.now, p.before)
}

func (p *peak) move(at int64) {
	switch period := at / int64(peakFor); {
	case period <= p.period:
	case period == p.period+1:
		*p = peak{period: period, before: p.now}
	default:
		*p = peak{period: period}
	}
}

// weigh notes what c holds, now that a record of it has come, and lets it go ahead of
// heavier ones if it is light. mu is held.
func (a *appender) weigh(c *client, now int64) {
	c.most.see(c.held.bytes, now)
	a.most.see(c.held.bytes, now)
	if !a.light(c, now) {
		return
	}
	a.unevenAt = now
	if !c.hurries {
		c.hurries = true
		a.hurried = append(a.hurried, c)
	}
}

// light says whether c holds so much less than the heaviest that it would wait for
// that one's records, and not for its own. What it has held for long counts too. mu is
// held.
func (a *appender) light(c *client, now int64) bool {
	most := a.most.lately(now)
	return most >= heavyBytes && max(c.most.lately(now), c.held.bytes)*lightPart <= most
}

// uneven says whether light clients came beside heavy ones of late. Then what is under
// way is kept small, since it is before whoever comes next. Clients that hold about the
// same wait for each other whatever a batch's size is, and large ones cost less. mu is
// held.
func (a *appender) uneven(now int64) bool {
	return a.unevenAt != 0 && now-a.unevenAt < int64(unevenFor)
}

// hurry is the first of the light clients with something waiting, or nil. mu is held.
func (a *appender) hurry(now int64) *client {
	for len(a.hurried) > 0 {
		c := a.hurried[0]
		if c.waiting.n > 0 && !c.over && a.light(c, now) {
			return c
		}
		c.hurries = false
		a.hurried[0] = nil
		a.hurried = a.hurried[1:]
	}
	a.hurried = nil
	return nil
}

// calm forgets who was light: nothing waits. mu is held.
func (a *appender) calm() {
	for _, c := range a.hurried {
		c.hurries = false
	}
	a.hurried, a.unevenAt = nil, 0
}

// whom is for whom there may be a batch now.
type whom int

const (
	nobody whom = iota
	lights
	anybody
)

// room says who of those that wait may go into a batch now. Two under way keep the
// leader busy: it writes the one while the other is on its way. More of them would
// each be smaller, and cost both sides as much again, so a third has to be worth it,
// or of a record that travels alone. Beside heavy clients it is for light ones: they
// wait for nobody's bulk. mu is held.
func (a *appender) room() whom {
	switch n := len(a.inflight); {
	case a.paused || n >= window || a.queue.n == 0:
		return nobody
	case n < ahead && !a.gathers():
		return anybody
	}
	now, solo := a.f.now(), a.queue.first().waiting.head.solo()
	if a.uneven(now) {
		switch {
		case a.hurry(now) != nil:
			return lights
		case solo && len(a.inflight) < window-1:
			return anybody
		}
		return nobody
	}
	if solo || a.queue.bytes >= min(worthwhile, a.f.cfg.BatchBytes) {
		return anybody
	}
	return nobody
}

// gathers says whether what waits should become more first. Many clients that each
// wait for an answer come back at about the same time: the first of them alone would
// make a batch that costs both sides as much as one of half of them does. It waits for
// half of those there are, and no longer than what is under way does. mu is held.
func (a *appender) gathers() bool {
	if len(a.inflight) == 0 {
		return false
	}
	crowd := a.crowd.lately(a.f.now())
	return crowd >= crowded && int64(a.queue.n)*2 < crowd
}

// underWay counts the records in batches without an outcome. mu is held.
func (a *appender) underWay() (n int) {
	for _, b := range a.inflight {
		n += int(b.count)
	}
	return n
}

// take makes the next batch of what is waiting, for whom there is room, or nil when
// nothing is. Up to half of it is of light clients, and the rest is everybody's in
// fair order, so that many light ones starve nobody either. mu is held.
func (a *appender) take(whom whom, fin *finished) *batch {
	now, limit := a.f.now(), a.f.cfg.BatchBytes
	if a.uneven(now) {
		limit = min(limit, unevenBytes)
	}
	b := &batch{first: a.seq, sentAt: now}
	part := limit / 2
	if whom == lights {
		part = limit
	}
	for c := a.hurry(now); c != nil && a.put(b, c, part, limit); c = a.hurry(now) {
		a.hurried = append(a.hurried[1:], c) // one record each, in turn
	}
	for c := a.queue.first(); whom == anybody && c != nil; c = a.queue.first() {
		if c.over {
			a.drop(c, fin)
			continue
		}
		if !a.put(b, c, limit, limit) {
			break
		}
	}
	if len(b.ops) == 0 {
		return nil
	}
	b.count = uint32(len(b.ops))
	a.seq += uint64(b.count)
	a.inflight = append(a.inflight, b)
	return b
}

// put moves the oldest op of c to b if it fits there: into its first part, and beside
// what travels alone nothing does. What there are few of is batches, so that costs a
// full one. mu is held.
func (a *appender) put(b *batch, c *client, part, full int) bool {
	o := c.waiting.head
	n := framedLen(len(o.rec))
	cost, solo := n, o.solo()
	if solo {
		cost = max(n, full)
	}
	switch {
	case b.ops == nil:
		b.ops = make([]*op, 0, min(a.queue.n, 1024))
	case solo || b.ops[0].solo() || b.bytes+n > part || len(b.ops) == maxBatchRecords:
		return false
	}
	a.queue.serve(c, cost)
	o.state = opInFlight
	b.ops = append(b.ops, o)
	b.bytes += n
	return true
}
