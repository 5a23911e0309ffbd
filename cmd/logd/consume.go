package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"math"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/logd-io/logd/internal/cli"
	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/client"
)

func consumeCommand() cli.Command {
	return cli.Command{
		Name:     "consume",
		Synopsis: "Print records",
		Long: `Prints the records from -from to the end of the log, one a line: the value, or
with -format json an object with everything. With -follow it waits at the end for
more, until it is interrupted. With -linearizable it prints the one record at the
offset -from, and misses none that was acknowledged to anybody before.`,
		Examples: `consume
consume -follow -from 10m
consume -from 4711 -n 1 -format json
consume -linearizable -from 4711`,
		Setup: func(fs *flag.FlagSet, env cli.Env) cli.Action {
			connect := cli.ConnectFlags(fs, env, cli.Sidecar)
			format := cli.FormatFlag(fs)
			follow := fs.Bool("follow", false, "wait at the end of the log for more")
			from := fs.String("from", "", "`earliest|latest|offset|time`; a time is RFC 3339 or how long ago, like 10m.\nDefault: earliest, with -follow latest")
			limit := fs.Uint64("n", 0, "`number` of records to end after. Default: no limit")
			linearizable := fs.Bool("linearizable", false, "read the one record at the offset -from as of now, whichever node answers")
			offsets := fs.Bool("offsets", false, "begin each line with the offset and a tab")
			return func(ctx context.Context, _ []string) error {
				start, err := parseFrom(*from, *follow)
				if err != nil {
					return err
				}
				if *linearizable && (!start.exact || *follow || *limit > 1) {
					return cli.Usagef("-linearizable reads one record: give its offset with -from, and neither -follow nor -n")
				}
				c, err := connect.Dial()
				if err != nil {
					return err
				}
				defer c.Close()
				out := newLineWriter(env.Stdout)
				show := func(r *logv1.Record) error { return out.record(r, *format, *offsets) }
				if *linearizable {
					err = readOne(ctx, c, connect.Timeout, start.offset, show)
				} else {
					err = consume(ctx, c, connect.Timeout, start, *follow, *limit, show)
				}
				if ctx.Err() != nil {
					err = nil // interrupting is how a tail is ended
				}
				return errors.Join(err, out.Close())
			}
		},
	}
}

// A start is where to begin: at an offset, at a time, or at one end.
type start struct {
	offset   uint64
	exact    bool // offset was given
	time     time.Time
	earliest bool
	latest   bool
}

func parseFrom(text string, follow bool) (start, error) {
	switch {
	case text == "earliest", text == "" && !follow:
		return start{earliest: true}, nil
	case text == "latest", text == "":
		return start{latest: true}, nil
	}
	if n, err := strconv.ParseUint(text, 10, 64); err == nil {
		return start{offset: n, exact: true}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return start{time: time.Now().Add(-ago)}, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return start{time: t}, nil
	}
	return start{}, cli.Usagef("-from %q: earliest, latest, an offset, a time like 2006-01-02T15:04:05Z, or how long ago, like 10m", text)
}

// readOne shows the record at offset as of now.
func readOne(ctx context.Context, c *client.Client, timeout time.Duration, offset uint64, show func(*logv1.Record) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	r, err := c.ReadLinearizable(ctx, offset)
	if err != nil {
		return err
	}
	return show(r)
}

func consume(ctx context.Context, c *client.Client, timeout time.Duration, at start, follow bool, limit uint64, show func(*logv1.Record) error) error {
	asking, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	log, err := c.Offsets(asking)
	if err != nil {
		return err
	}
	from, to := at.offset, log.Next
	switch {
	case at.earliest:
		from = log.Lowest
	case at.latest:
		from = log.Next
	case !at.time.IsZero():
		if from, err = c.OffsetAt(asking, at.time); err != nil {
			return err
		}
	case from > log.Next && !follow || from < log.Lowest:
		return &rangeError{from, log}
	}
	if follow {
		to = math.MaxUint64
	}
	if limit > 0 && to-min(from, to) > limit {
		to = from + limit
	}
	return c.ConsumeRange(ctx, from, to, show)
}

// rangeError is an offset outside the log.
type rangeError struct {
	offset uint64
	log    client.Offsets
}

func (e *rangeError) Error() string {
	return "offset " + strconv.FormatUint(e.offset, 10) + " is outside the log, which has [" +
		strconv.FormatUint(e.log.Lowest, 10) + ", " + strconv.FormatUint(e.log.Next, 10) + ")"
}

// flushPace is how long a line may wait for others to be written with it.
const flushPace = 50 * time.Millisecond

// lineWriter gathers lines, and writes them when there are many or soon.
type lineWriter struct {
	stop chan struct{} // closed by Close
	done chan struct{} // closed when the flusher has ended

	mu  sync.Mutex
	buf *bufio.Writer // guarded by mu
}

func newLineWriter(w io.Writer) *lineWriter {
	l := &lineWriter{stop: make(chan struct{}), done: make(chan struct{}), buf: bufio.NewWriterSize(w, 64<<10)}
	go l.flush() // Close waits for it
	return l
}

func (l *lineWriter) flush() {
	defer close(l.done)
	tick := time.NewTicker(flushPace)
	defer tick.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-tick.C:
			l.mu.Lock()
			_ = l.buf.Flush() // bufio keeps the error for the next write and for Close
			l.mu.Unlock()
		}
	}
}

func (l *lineWriter) record(r *logv1.Record, format cli.Format, offsets bool) error {
	var line []byte
	if format == cli.JSON {
		encoded, err := json.Marshal(shown(r))
		if err != nil {
			return err
		}
		line = encoded
	} else {
		if offsets {
			line = append(strconv.AppendUint(line, r.GetOffset(), 10), '\t')
		}
		line = append(line, r.GetValue()...)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := l.buf.Write(append(line, '\n'))
	return err
}

// Close writes what is left.
func (l *lineWriter) Close() error {
	close(l.stop)
	<-l.done
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Flush()
}

// shownBytes is text where the bytes are text, and base64 where not.
type shownBytes struct {
	Text   string `json:"text,omitempty"`
	Base64 []byte `json:"base64,omitempty"`
}

func show(b []byte) *shownBytes {
	switch {
	case len(b) == 0:
		return nil
	case utf8.Valid(b):
		return &shownBytes{Text: string(b)}
	}
	return &shownBytes{Base64: b}
}

type shownHeader struct {
	Key   string      `json:"key"`
	Value *shownBytes `json:"value,omitempty"`
}

type shownRecord struct {
	Offset  uint64        `json:"offset"`
	Time    string        `json:"time,omitempty"`
	Key     *shownBytes   `json:"key,omitempty"`
	Headers []shownHeader `json:"headers,omitempty"`
	Value   *shownBytes   `json:"value"` // null: empty
}

func shown(r *logv1.Record) shownRecord {
	out := shownRecord{Offset: r.GetOffset(), Key: show(r.GetKey()), Value: show(r.GetValue())}
	if r.GetTimestamp() != 0 {
		out.Time = time.Unix(0, r.GetTimestamp()).UTC().Format(time.RFC3339Nano)
	}
	for _, h := range r.GetHeaders() {
		out.Headers = append(out.Headers, shownHeader{h.GetKey(), show(h.GetValue())})
	}
	return out
}
