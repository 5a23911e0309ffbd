package commitlog

import "slices"

// gone is what SetStart took out of the log and Sweep has yet to remove.
type gone struct {
	segments []*segment
	offsets  []*offsetFile
}

func (g *gone) add(segments []*segment, offsets []*offsetFile) {
	g.segments = append(slices.Clone(g.segments), segments...)
	g.offsets = append(slices.Clone(g.offsets), offsets...)
}

// Sweep removes the oldest segment file below the start of the log, and the
// offset files that go with it. more says that others are left. The caller sets
// the pace: a filesystem that frees many large files at once keeps writers
// waiting. No lock that a writer or reader needs is held meanwhile; whoever
// reads from such a file reads on. What is left when the process ends, Open
// removes.
func (l *Log) Sweep() (more bool, err error) {
	more, err = l.sweep()
	return more, l.report(err)
}

func (l *Log) sweep() (more bool, err error) {
	l.sweeping.Lock()
	defer l.sweeping.Unlock()
	if err := l.check(); err != nil {
		return false, err
	}
	l.mu.Lock()
	var first *segment
	if len(l.gone.segments) > 0 {
		first = l.gone.segments[0]
		l.gone.segments = l.gone.segments[1:]
	}
	var offsets []*offsetFile
	for size := int64(0); len(l.gone.offsets) > 0 && size < l.options.SegmentBytes; {
		f := l.gone.offsets[0]
		l.gone.offsets = l.gone.offsets[1:]
		offsets = append(offsets, f)
		size += f.place(f.count)
	}
	more = len(l.gone.segments)+len(l.gone.offsets) > 0
	l.mu.Unlock()
	if first == nil && offsets == nil {
		return false, nil
	}
	var segments []*segment
	if first != nil {
		segments = append(segments, first)
	}
	return more, l.discardAll(segments, offsets)
}
