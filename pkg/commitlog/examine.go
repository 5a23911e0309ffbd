package commitlog

// examine finds out how far the damage reaches that a read of the entry at
// index met, as err, and notes it. It returns err.
func (l *Log) examine(index uint64, err error) error {
	if !isCorrupt(err) {
		return err
	}
	l.examining.Lock()
	defer l.examining.Unlock()
	for {
		l.mu.RLock()
		if l.closed || l.inDamage(index) != nil || index <= l.start.Index || index > l.last.index ||
			len(l.segments) == 0 || l.segments[0].first > index {
			l.mu.RUnlock()
			return err
		}
		s, next, shape, last := l.acquire(index), l.behind(index), l.shape, l.last
		l.mu.RUnlock()
		list, serr := l.surveyLive(s, next, last, nil)
		s.handle.drop()
		if serr != nil {
			return err // of the disk, or of Close
		}
		to := last.index
		if next != nil {
			to = next.prevIndex
		}
		if l.replaceDamage(s.first, to, list, shape) {
			return err
		}
	}
}

// behind returns the segment after the one that has index, nil when there is
// none; mu is held.
func (l *Log) behind(index uint64) *segment {
	for _, s := range l.segments {
		if s.first > index {
			return s
		}
	}
	return nil
}

// surveyLive lists the damage of a segment of a log in use, whose last entry
// was last. Nothing is torn there: what is listed was stored.
func (l *Log) surveyLive(s, next *segment, last tail, pace func(int64) error) ([]*damage, error) {
	if next != nil {
		return l.surveySealed(s, next, pace)
	}
	v, err := l.surveyPaced(s, last.index, s.frameEnd(), pace)
	if err != nil {
		return nil, err
	}
	if v.next.index <= last.index {
		r := v.rest(s, last.index, Anchor{Index: last.index, Term: last.term, Known: last.term != 0}, s.frameEnd())
		r.clean = false
		v.damage = append(v.damage, r)
	}
	return v.damage, nil
}
