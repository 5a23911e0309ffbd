package throttle

import (
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Count is how much was refused or made to wait so far.
func (t *Throttle) Count() (n float64) {
	if t == nil {
		return 0
	}
	ch := make(chan prometheus.Metric, 64) // a few at a time
	go func() {                            // ends with Collect, which the loop below drains
		defer close(ch)
		t.metrics.throttled.Collect(ch)
	}()
	for m := range ch {
		var x dto.Metric
		if m.Write(&x) == nil {
			n += x.GetCounter().GetValue()
		}
	}
	return n
}
