package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"github.com/logd-io/logd/config"
	"github.com/logd-io/logd/internal/cli"
	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/client"
)

func produceCommand() cli.Command {
	return cli.Command{
		Name:     "produce",
		Synopsis: "Append the lines of standard input",
		Long: `Appends each line of standard input as one record, in order, and prints how many
were acknowledged. The line's end is not part of the record; an empty line is an
empty record. After a failure the first 'acked' lines are in the log, and of those
after them some may be.`,
		Examples: `produce <records.txt
produce -record-key user-7 -address unix:///run/logproxy.sock <records.txt`,
		Setup: func(fs *flag.FlagSet, env cli.Env) cli.Action {
			connect := cli.ConnectFlags(fs, env, cli.Sidecar)
			format := cli.FormatFlag(fs)
			window := fs.Int("window", client.DefaultWindow, fmt.Sprintf("`number` of records under way at most. Default: %d", client.DefaultWindow))
			key := fs.String("record-key", "", "`key` of every record")
			return func(ctx context.Context, _ []string) error {
				if *window < 1 {
					return cli.Usagef("-window %d: at least 1", *window)
				}
				c, err := connect.Dial()
				if err != nil {
					return err
				}
				defer c.Close()
				p, err := c.Producer(context.WithoutCancel(ctx), *window) // ended by Close, after the last acknowledgement
				if err != nil {
					return err
				}
				err = produce(ctx, env, p, []byte(*key), connect.Timeout)
				return errors.Join(writeCount(env.Stdout, *format, p.Progress()), err)
			}
		},
	}
}

// produce sends stdin's lines until its end, a failure or the end of ctx, and
// waits for what is under way.
func produce(ctx context.Context, env cli.Env, p *client.Producer, key []byte, grace time.Duration) error {
	start := time.Now()
	progress := cli.ShowProgress(env, func() string {
		at := p.Progress()
		return fmt.Sprintf("produced %d  acked %d  %.0f/s", at.Sent, at.Acked, float64(at.Acked)/time.Since(start).Seconds())
	})
	defer progress.Stop()

	err := sendLines(ctx, env.Stdin, p, key)
	closing, cancel := ctx, context.CancelFunc(func() {})
	if ctx.Err() != nil {
		// Interrupted: what was sent gets its answer, but not for ever.
		err = errors.New("interrupted")
		closing, cancel = context.WithTimeout(context.WithoutCancel(ctx), grace)
	}
	defer cancel()
	closed := p.Close(closing)
	if err == nil {
		return closed
	}
	return err // closed repeats it, or follows from it
}

// A line is what sendLines' reader hands over; one with err is the last.
type line struct {
	text []byte
	err  error
}

func sendLines(ctx context.Context, r io.Reader, p *client.Producer, key []byte) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lines := make(chan line) // unbuffered: the window bounds what is read ahead
	// Reads ahead of Send so that an interrupt is seen while input is awaited. A
	// read of a terminal cannot be ended, so nobody waits for it.
	go readLines(ctx, r, lines)
	for {
		select {
		case l := <-lines:
			if errors.Is(l.err, io.EOF) {
				return nil
			}
			if l.err != nil {
				return l.err
			}
			if err := p.Send(ctx, &logv1.Record{Value: l.text, Key: key}); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func readLines(ctx context.Context, r io.Reader, lines chan<- line) {
	scanner := bufio.NewScanner(r)
	scanner.Buffer(make([]byte, 0, 64<<10), int(config.MiB)) // larger than any record can be
	scanner.Split(splitLines)
	n := 0
	for {
		var l line
		if scanner.Scan() {
			n++
			l.text = bytes.Clone(scanner.Bytes())
		} else if l.err = scanner.Err(); l.err == nil {
			l.err = io.EOF
		}
		if errors.Is(l.err, bufio.ErrTooLong) || len(l.text) > int(config.MaxRecordSize) {
			at := n
			if l.err != nil {
				at++ // the one that did not fit was not counted
			}
			l.err = fmt.Errorf("line %d is too long: a record has at most %d bytes", at, config.MaxRecordSize)
		}
		select {
		case lines <- l:
			if l.err != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// splitLines is bufio.ScanLines without taking a carriage return off.
func splitLines(data []byte, atEOF bool) (int, []byte, error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i], nil
	}
	if atEOF && len(data) > 0 {
		return len(data), data, nil
	}
	return 0, nil, nil
}

type producedShown struct {
	Produced uint64  `json:"produced"`
	Acked    uint64  `json:"acked"`
	First    *uint64 `json:"first_offset,omitempty"` // absent: nothing was acknowledged
	Last     *uint64 `json:"last_offset,omitempty"`
}

func writeCount(w io.Writer, format cli.Format, at client.Acked) error {
	if format == cli.JSON {
		out := producedShown{Produced: at.Sent, Acked: at.Acked}
		if at.Acked > 0 {
			out.First, out.Last = &at.First, &at.Last
		}
		return cli.WriteJSON(w, out)
	}
	text := fmt.Sprintf("produced %d  acked %d", at.Sent, at.Acked)
	if at.Acked > 0 {
		text += fmt.Sprintf("  first offset %d  last offset %d", at.First, at.Last)
	}
	_, err := fmt.Fprintln(w, text)
	return err
}
