package forward

import (
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/mem"
)

type opState uint8

const (
	opWaiting  opState = iota // in the queue; never sent, or certainly not appended
	opInFlight                // its bytes are in a frozen batch
	opDone                    // offset, duplicate and err are final
)

// op is one record on its way. Everything but msg is guarded by its appender's mu
// until state is opDone; from then on it is its waiter's.
type op struct {
	next, prev *op // in client's queue while opWaiting

	msg message // what the client sent; used by the handler before the op is queued

	state  opState
	gone   bool       // nobody waits any more; whoever finishes it recycles it
	keyed  bool       // travels alone, with key
	alone  bool       // travels alone, since a batch with it was refused as invalid
	buf    mem.Buffer // holds rec; nil once rec was copied into a batch
	rec    []byte     // the encoded Record; nil with buf
	key    [16]byte
	client *client // set from the time it is queued
	lane   *lane   // nil for a unary produce
	size   int     // what it counts in the bounds
	cost   int     // what its client was charged for it in the queue
	// Times are nanoseconds since the forwarder was made. due is 0 without a
	// deadline of the client's.
	queued, due int64

	offset    uint64
	duplicate bool
	err       error
	span      trace.Span // of the client's call; nil: none is recorded
	by        string     // the node whose word the outcome is; empty: nobody's
	// done has room for the one signal that the op is finished, so that nobody
	// waits to send it. Lanes do not use it.
	done  chan struct{}
	alarm *time.Timer // of the waiter, kept with done; nil before the first
}

// opPool recycles ops with their channels. An op goes back only when its done
// channel is empty and no queue, batch or handler knows it.
type opPool struct{ p sync.Pool }

func (p *opPool) get() *op {
	if o, ok := p.p.Get().(*op); ok {
		return o
	}
	return &op{done: make(chan struct{}, 1)}
}

func (p *opPool) put(o *op) {
	o.release()
	o.msg.free()
	*o = op{done: o.done, alarm: o.alarm}
	p.p.Put(o)
}

// late fires when o is due for its client, unless notLate comes first.
func (o *op) late(now int64) <-chan time.Time {
	switch left := time.Duration(o.due - now); {
	case o.due == 0:
		return nil
	case o.alarm == nil:
		o.alarm = time.NewTimer(left)
	default:
		o.alarm.Reset(left)
	}
	return o.alarm.C
}

func (o *op) notLate() {
	if o.alarm != nil {
		o.alarm.Stop()
	}
}

// solo says that o travels in a batch of its own.
func (o *op) solo() bool { return o.keyed || o.alone }

// release lets the record's bytes go.
func (o *op) release() {
	if o.buf != nil {
		o.buf.Free()
	}
	o.buf, o.rec = nil, nil
}

// load is what o counts in the bounds: all of it, and what of that is a stream's.
func (o *op) load() (all, stream load) {
	all = load{1, int64(o.size)}
	if o.lane != nil {
		stream = all
	}
	return all, stream
}
