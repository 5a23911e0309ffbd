package forward

import (
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Counts are what the data path has counted since it was made, of what a person may
// have to know about.
type Counts struct {
	Held         float64 // produces that came while no leader made progress
	Refused      float64 // produces, for a bound of what is held
	Expired      float64 // produces whose time ran out first
	Retries      float64 // append streams opened after one that failed
	Resent       float64 // batches sent again
	AckTimeouts  float64 // append streams given up because the leader was silent
	ReadRetries  float64 // reads tried on a further node
	SessionWaits float64 // reads for which a node was behind
	Resumes      float64 // tails continued on another node
	Stalls       float64 // tails whose node fell silent
	Slow         float64 // tails too slow for those they shared a fetch with
}

// Counts answers them. It does not block.
func (f *Forwarder) Counts() Counts {
	m := f.metrics
	return Counts{
		Held: value(m.held), Refused: value(m.refused), Expired: value(m.expired),
		Retries: value(m.retries), Resent: value(m.resent), AckTimeouts: value(m.ackTimeouts),
		ReadRetries: value(m.readRetries), SessionWaits: value(m.sessionWaits),
		Resumes: value(m.resumes), Stalls: value(m.stalls), Slow: value(m.fallsBehind),
	}
}

func value(c prometheus.Counter) float64 {
	var m dto.Metric
	if c.Write(&m) != nil {
		return 0 // a counter can always be written
	}
	return m.GetCounter().GetValue()
}
