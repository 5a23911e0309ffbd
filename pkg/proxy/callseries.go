package proxy

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"

	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/proxy/route"
)

const (
	// mostUpstreams bounds the values of the label upstream. Nodes that have left make
	// room for new ones: their ids never come back.
	mostUpstreams = 64
	// none is the label of calls in whose outcome no node had a part, and other that of
	// methods, or nodes, that have none of their own.
	none  = "none"
	other = "other"
)

// callSeries finds the series of a call without asking the vecs, which costs more
// than all else that is counted of it.
type callSeries struct {
	calls   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	past    *prometheus.CounterVec
	holder  *route.Holder

	known atomic.Pointer[map[callKey]callHandles] // immutable; replaced under mu

	mu        sync.Mutex
	upstreams map[string]bool // that have series; guarded by mu
}

type callKey struct {
	method   string
	code     codes.Code
	upstream string // empty: none
}

type callHandles struct {
	total   prometheus.Counter
	seconds prometheus.Observer // nil for a stream
	past    prometheus.Counter  // nil but for RESOURCE_EXHAUSTED
}

// count counts a call that ended with err.
func (h callHandles) count(err error) {
	h.total.Inc()
	if h.past == nil {
		return
	}
	if info, _ := apierr.From(err); info.Metadata[apierr.KeyLimit] != "" {
		h.past.Inc()
	}
}

func (s *callSeries) init(calls *prometheus.CounterVec, seconds *prometheus.HistogramVec, past *prometheus.CounterVec, holder *route.Holder) {
	s.calls, s.seconds, s.past, s.holder = calls, seconds, past, holder
	s.known.Store(&map[callKey]callHandles{})
	s.upstreams = map[string]bool{}
}

// of is where such a call is counted. A method is either unary or not.
func (s *callSeries) of(method string, unary bool, code codes.Code, upstream string) callHandles {
	key := callKey{method, code, upstream}
	if h, ok := (*s.known.Load())[key]; ok {
		return h
	}
	return s.add(key, unary)
}

func (s *callSeries) add(key callKey, unary bool) callHandles {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := maps.Clone(*s.known.Load())
	label := key.upstream
	switch {
	case label == "":
		label = none
	case s.upstreams[label]:
	default:
		if len(s.upstreams) >= mostUpstreams {
			s.forget(known)
		}
		if len(s.upstreams) < mostUpstreams {
			s.upstreams[label] = true
		} else {
			label = other
		}
	}
	h := callHandles{total: s.calls.WithLabelValues(key.method, key.code.String(), label)}
	if unary {
		h.seconds = s.seconds.WithLabelValues(key.method, key.code.String(), label)
	}
	if key.code == codes.ResourceExhausted {
		h.past = s.past.WithLabelValues(key.method, label)
	}
	if label != other {
		known[key] = h
		s.known.Store(&known)
	}
	return h
}

// forget removes the series of the nodes that are not in the table any more. mu is
// held.
func (s *callSeries) forget(known map[callKey]callHandles) {
	nodes := s.holder.Load().Nodes
	for id := range s.upstreams {
		if nodes[id] != nil {
			continue
		}
		delete(s.upstreams, id)
		s.calls.DeletePartialMatch(prometheus.Labels{"upstream": id})
		s.seconds.DeletePartialMatch(prometheus.Labels{"upstream": id})
		s.past.DeletePartialMatch(prometheus.Labels{"upstream": id})
		maps.DeleteFunc(known, func(k callKey, _ callHandles) bool { return k.upstream == id })
	}
}
