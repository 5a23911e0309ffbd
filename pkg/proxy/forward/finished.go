package forward

// finished gathers ops that got their outcome under an appender's mu, to tell
// their clients after it.
type finished struct {
	unary   []*op
	spent   []*op
	all     load
	streams load   // of all
	by      string // the node whose word the outcomes are
}

func (fin *finished) grow(n int) { fin.unary = make([]*op, 0, n) }

// add gives o its outcome. The appender's mu is held, and o is in no queue or
// batch any more.
func (fin *finished) add(o *op, offset uint64, duplicate bool, err error) {
	o.state, o.offset, o.duplicate, o.err, o.by = opDone, offset, duplicate, err, fin.by
	all, streams := o.load()
	fin.all.add(all)
	fin.streams.add(streams)
	o.client.held.sub(all)
	switch {
	case o.lane != nil:
		if err != nil {
			o.client.over = true
		}
		o.lane.finish(outcome{offset, o.size}, fin.by, err)
		fin.spent = append(fin.spent, o)
	case o.gone:
		fin.spent = append(fin.spent, o)
	default:
		fin.unary = append(fin.unary, o)
	}
}

// keep leaves the bytes of o, which was added, counted: they are part of b, which may
// have to be sent again for as long as its outcome is unknown.
func (fin *finished) keep(b *batch, o *op) {
	rec := load{bytes: int64(o.size - opCost)}
	b.kept.add(rec)
	fin.all.sub(rec)
	if o.lane != nil {
		b.keptOfStreams.add(rec)
		fin.streams.sub(rec)
	}
}

// end lets b go, of which all ops have been added or queued again.
func (fin *finished) end(b *batch) {
	b.gaveUp("the batch was not appended, or its outcome is not known") // unless it is over
	fin.all.add(b.kept)
	fin.streams.add(b.keptOfStreams)
	b.free()
}

func (fin *finished) tell(f *Forwarder) {
	f.limit.release(fin.all, fin.streams)
	for _, o := range fin.spent {
		f.ops.put(o)
	}
	for _, o := range fin.unary {
		o.done <- struct{}{}
	}
}
