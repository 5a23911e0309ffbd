package replica

import "time"

// Stats looks at Raft and at the log. It does not wait for either.
func (r *Replica) Stats() Stats {
	log := r.store.Log()
	ls := log.Stats()
	v, disk := r.View(), r.reserve.state.Load()
	s := Stats{
		State: v.State, Term: v.Term, LeaderID: v.LeaderID, Ready: v.Ready, Draining: v.Draining,
		LastIndex: log.Last(), FirstIndex: log.First(), LastContact: -1,
		DiskFree: disk.room, DiskReserve: disk.reserve, DiskLow: disk.low,
		Visible: log.Visible(), Lowest: log.Lowest(), LogBytes: ls.Bytes, Segments: ls.Segments,
		Damaged: ls.Damaged, Scrub: ls.Scrub,
	}
	if start := log.Start(); s.LastIndex == start.Index {
		s.LastTerm = start.Term
	} else if e, err := log.Entry(s.LastIndex); err == nil {
		s.LastTerm = e.Term
	}
	e := r.engine.Load()
	if e == nil {
		// A peer that repairs asks for both, whether Raft runs here or not.
		s.Term, s.CommitIndex = r.store.Term(), r.committed()
		return s
	}
	s.Term = e.raft.CurrentTerm()
	s.CommitIndex = e.raft.CommitIndex()
	s.AppliedIndex = e.fsm.applied.Load()
	if e.appliedTo(s.CommitIndex) {
		s.AppliedIndex = max(s.AppliedIndex, s.CommitIndex)
	}
	if v.State == StateLeader {
		s.LastContact = 0
	} else if last := e.raft.LastContact(); !last.IsZero() {
		s.LastContact = time.Since(last)
	}
	s.Producers, s.Hash = e.fsm.figures()
	s.InFlight = e.batch.load()
	return s
}
