package main

import (
	"context"
	"errors"
	"math"
	"sync/atomic"
	"time"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/client"
)

// read is what bench consume reads.
type read struct {
	extent
	from    start
	follow  bool
	timeout time.Duration // of the call that asks where to begin
}

// errAllRead ends a reader when all of them together have read what was asked for.
var errAllRead = errors.New("enough")

// consume reads on all connections at a time, and has m know each record.
func (r read) consume(ctx context.Context, conns []*client.Client, m *measure) {
	ctx, cancel := r.limited(ctx)
	defer cancel()
	most := r.records
	if most == 0 {
		most = math.MaxUint64
	}
	var count atomic.Uint64
	spread(len(conns), func(i int) {
		err := consume(ctx, conns[i], r.timeout, r.from, r.follow, 0, func(record *logv1.Record) error {
			if n := count.Add(1); n > most {
				return errAllRead
			}
			if r.follow {
				m.done(time.Unix(0, record.GetTimestamp()), len(record.GetValue()), nil)
			} else {
				m.count(len(record.GetValue()))
			}
			if count.Load() >= most {
				return errAllRead
			}
			return nil
		})
		if err != nil && !errors.Is(err, errAllRead) && ctx.Err() == nil {
			m.done(time.Now(), 0, err)
		}
		if count.Load() >= most {
			cancel() // the others may be waiting at the end of the log
		}
	})
}
