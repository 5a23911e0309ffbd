package replica

import (
	"context"
	"time"
)

// handoverPeriod is how often a leader below its reserve looks for another.
const handoverPeriod = time.Second

// handover hands leadership on while this node's disk is all that keeps the cluster
// from taking records: as a follower below its reserve it keeps nobody.
func (e *engine) handover() {
	tick := time.NewTicker(handoverPeriod)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-e.stop:
			return
		}
		for _, id := range e.heirs() {
			// As long as an election may take: what cannot follow so fast is no better.
			ctx, cancel := context.WithTimeout(context.Background(), max(5*e.r.cfg.Heartbeat, time.Second))
			err := e.r.Transfer(ctx, id)
			cancel()
			e.r.logger.Info("below the reserve of disk while leading; leadership is handed on", "node", e.r.cfg.ID, "to", id, "err", err)
			if err == nil {
				break
			}
		}
	}
}

// heirs are the voters that would take records if they led, when this node leads
// and must not: those above their reserve, if without this node they are a
// majority.
func (e *engine) heirs() (ids []string) {
	if !e.r.rules.reserve || !e.r.reserve.low() {
		return nil
	}
	v := e.r.View()
	if !v.IsLeader || v.Draining {
		return nil
	}
	voters := 0
	for _, p := range v.Peers {
		if !p.Voter {
			continue
		}
		voters++
		if low, answers := e.voters.stand(p.ID, e.silence()); p.ID != v.LeaderID && !low && answers {
			ids = append(ids, p.ID)
		}
	}
	if len(ids) <= voters/2 {
		return nil
	}
	return ids
}
