package route

import "sync/atomic"

// Holder holds the newest Table. The zero Holder is ready to use, with an empty
// table.
type Holder struct{ p atomic.Pointer[Table] }

// Load answers the newest table, never nil.
//
// To wait for a change, load, look, and only then wait for Superseded of what was
// loaded: nothing published in between is missed.
func (h *Holder) Load() *Table {
	for {
		if t := h.p.Load(); t != nil {
			return t
		}
		h.p.CompareAndSwap(nil, New(Spec{}))
	}
}

// Publish puts t in place and then closes Superseded of the one before. The
// control loop alone calls it. A table is published once.
func (h *Holder) Publish(t *Table) {
	if old := h.p.Swap(t); old != nil && old != t {
		close(old.superseded)
	}
}
