package forward

// fairQueue is what waits in an appender: each client's ops in their order, and of
// the clients the one that has been served least goes next. That is start-time fair
// queueing (Goyal, Vin and Cheng, SIGCOMM 1996) with equal weights: a client's start
// grows by the bytes it is served, and one that had nothing waiting starts at the
// present, so it goes before those who have had more since, and cannot save up.
//
// All of it is guarded by the appender's mu.
type fairQueue struct {
	n      int       // ops
	bytes  int       // of their records, as they stand in a batch
	line   []*client // a heap: those with something waiting, the least start first
	now    uint64    // virtual time: the start of the client served last
	latest uint64    // the greatest start there has been: none in line is beyond, nor now
}

// chargeStep is by how many bytes a start moves at least: small records shall not
// cost a step through the heap each.
const chargeStep = 1 << 10

// first is the client whose turn it is, or nil when nothing waits.
func (q *fairQueue) first() *client {
	if len(q.line) == 0 {
		return nil
	}
	return q.line[0]
}

// serve takes the oldest op of c, which costs it so many bytes. It is the turn of c, or
// it goes ahead.
func (q *fairQueue) serve(c *client, cost int) *op {
	o := c.waiting.head
	o.cost = cost
	if c == q.line[0] {
		q.now = c.start
	}
	if c.owed += cost; c.owed >= chargeStep {
		c.start += uint64(c.owed)
		c.owed = 0
		q.latest = max(q.latest, c.start)
	}
	q.remove(o)
	if c.waiting.n > 0 {
		q.down(c.slot)
	}
	return o
}

func (q *fairQueue) pushBack(o *op) {
	o.client.waiting.pushBack(o)
	q.added(o)
}

// pushFront puts back the op that was served last of those that were not put back, and
// its client is charged nothing for it. The present is then no later than when it was
// served: else its client would lose what it had saved up for it.
func (q *fairQueue) pushFront(o *op) {
	c := o.client
	if c.owed -= o.cost; c.owed < 0 {
		c.start -= min(c.start, uint64(-c.owed))
		c.owed = 0
	}
	o.cost = 0
	q.now = min(q.now, c.start)
	c.waiting.pushFront(o)
	q.added(o)
	q.up(c.slot)
}

func (q *fairQueue) added(o *op) {
	c := o.client
	q.n++
	q.bytes += framedLen(len(o.rec))
	if c.waiting.n > 1 {
		return
	}
	// Between the present and the one served most, if it comes from another appender.
	c.start = min(max(c.start, q.now), q.latest)
	c.slot = len(q.line)
	q.line = append(q.line, c)
	q.up(c.slot)
}

// remove takes o out, wherever it waits.
func (q *fairQueue) remove(o *op) {
	c := o.client
	c.waiting.remove(o)
	q.n--
	q.bytes -= framedLen(len(o.rec))
	if c.waiting.n > 0 {
		return
	}
	last := len(q.line) - 1
	i := c.slot
	q.swap(i, last)
	q.line[last] = nil
	q.line = q.line[:last]
	switch {
	case last == 0:
		q.now = q.latest // nobody waits, so nobody is owed anything
	case i < last:
		q.down(i)
		q.up(i)
	}
}

func (q *fairQueue) swap(i, j int) {
	q.line[i], q.line[j] = q.line[j], q.line[i]
	q.line[i].slot, q.line[j].slot = i, j
}

func (q *fairQueue) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if q.line[parent].start <= q.line[i].start {
			return
		}
		q.swap(i, parent)
		i = parent
	}
}

func (q *fairQueue) down(i int) {
	for {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(q.line); child++ {
			if q.line[child].start < q.line[least].start {
				least = child
			}
		}
		if least == i {
			return
		}
		q.swap(i, least)
		i = least
	}
}

// opQueue is a list of waiting ops, oldest first, so that one in the middle can
// leave at once.
type opQueue struct {
	head, tail *op
	n          int
}

func (q *opQueue) pushBack(o *op) {
	o.prev, o.next = q.tail, nil
	if q.tail != nil {
		q.tail.next = o
	} else {
		q.head = o
	}
	q.tail = o
	q.n++
}

func (q *opQueue) pushFront(o *op) {
	o.prev, o.next = nil, q.head
	if q.head != nil {
		q.head.prev = o
	} else {
		q.tail = o
	}
	q.head = o
	q.n++
}

func (q *opQueue) remove(o *op) {
	if o.prev != nil {
		o.prev.next = o.next
	} else {
		q.head = o.next
	}
	if o.next != nil {
		o.next.prev = o.prev
	} else {
		q.tail = o.prev
	}
	o.prev, o.next = nil, nil
	q.n--
}
