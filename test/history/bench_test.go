package history_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/test/history"
)

// large is a clean history of n events: 64 writers at once, two tails, a reader, and
// somebody who asks where the log ends.
func large(n int) *history.History {
	const writers = 64
	h := &history.History{}
	for i := range writers + 4 {
		h.Conns = append(h.Conns, history.Who{Name: fmt.Sprint("client ", i), Session: fmt.Sprint("session ", i/8)})
	}
	for stream := range int32(2) {
		h.Events = append(h.Events, history.Event{Op: history.Open, Conn: writers + stream, Stream: stream + 1, End: history.Forever})
	}
	records := []history.Record{}
	for now := int64(writers); len(h.Events) < n; now++ {
		off := uint64(len(records))
		rec := history.Record{Sum: off*0x9e3779b97f4a7c15 + 1, Time: now}
		records = append(records, rec)
		e := history.Event{
			Op: history.Produce, Outcome: history.OK, Conn: int32(now % writers), Start: now - writers + 1, End: now, Offset: off, Sum: rec.Sum,
		}
		if off%16 == 0 {
			e.Key = off + 1
		}
		h.Events = append(h.Events, e)
		for stream := range int32(2) {
			h.Events = append(h.Events, history.Event{
				Op: history.Deliver, Outcome: history.OK, Conn: writers + stream, Stream: stream + 1, Start: now, End: now, Offset: off, Sum: rec.Sum, Time: rec.Time,
			})
		}
		switch off % 8 {
		case 0:
			h.Events = append(h.Events, history.Event{
				Op: history.Consume, Outcome: history.OK, Linear: true, Conn: writers + 2, Start: now, End: now, Asked: off, Offset: off, Sum: rec.Sum, Time: rec.Time,
			})
		case 4:
			h.Events = append(h.Events, history.Event{Op: history.Ends, Outcome: history.OK, Conn: writers + 3, Start: now, End: now, Next: off + 1})
		}
	}
	h.Logs = []history.Log{{Node: "a", Records: records}}
	return h
}

func BenchmarkCheck(b *testing.B) {
	for _, n := range []int{10_000, 100_000, 1_000_000} {
		h := large(n)
		b.Run(fmt.Sprint("events=", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				require.Empty(b, history.Check(h).Violations)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(h.Events)), "ns/event")
		})
	}
}

// instant answers at once.
type instant struct{ grpc.ClientConnInterface }

func (instant) Invoke(context.Context, string, any, any, ...grpc.CallOption) error { return nil }

// BenchmarkRecord is what recording adds to a call.
func BenchmarkRecord(b *testing.B) {
	r := history.NewRecorder()
	req := &logv1.ProduceRequest{Record: &logv1.Record{Value: make([]byte, 64)}}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		c := r.Conn(instant{}, history.Who{Name: "client"})
		resp := &logv1.ProduceResponse{}
		for pb.Next() {
			if err := c.Invoke(b.Context(), logv1.Log_Produce_FullMethodName, req, resp); err != nil {
				b.Error(err)
			}
		}
	})
}
