package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/logd-io/logd/internal/cli"
	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/replica"
)

func inspectDumpCommand() cli.Command {
	return cli.Command{
		Name:     "inspect dump",
		Synopsis: "Show the entries of a stopped node",
		Args:     "<data dir>",
		Long: `Shows each entry of the log with what is in it: a line for the entry, then an
indented one for each batch, and with -records for each record. What became of a
batch is decided again, as the node decided it. Entries above the commit known may
never have become part of the log. With -format json each entry is an object on a
line of its own. The node must be stopped, and nothing is changed.`,
		Examples: `inspect dump /var/lib/logd
inspect dump -entries 1000-1010 -records /var/lib/logd
inspect dump -offsets 42-42 -records -format json /var/lib/logd`,
		Setup: func(fs *flag.FlagSet, env cli.Env) cli.Action {
			format := cli.FormatFlag(fs)
			entries := fs.String("entries", "", "`first-last` entries to show. Default: all")
			offsets := fs.String("offsets", "", "`first-last` offsets: only the batches that have some of them")
			records := fs.Bool("records", false, "show the records, too")
			return func(ctx context.Context, args []string) error {
				d := dump{format: *format, records: *records, byOffset: *offsets != ""}
				var err error
				switch {
				case *entries != "" && *offsets != "":
					return cli.Usagef("-entries or -offsets, not both")
				case d.byOffset:
					d.from, d.to, err = parseRange("offsets", *offsets)
				default:
					d.from, d.to, err = parseRange("entries", *entries)
				}
				if err != nil {
					return err
				}
				o, err := openOffline(args)
				if err != nil {
					return err
				}
				d.out = bufio.NewWriterSize(env.Stdout, 64<<10)
				err = d.run(ctx, o)
				return errors.Join(err, d.out.Flush(), o.Close())
			}
		},
	}
}

// parseRange reads "first-last", either of which may be left out.
func parseRange(name, text string) (from, to uint64, err error) {
	a, b, dash := strings.Cut(text, "-")
	if !dash {
		b = a
	}
	to = math.MaxUint64
	if a != "" {
		from, err = strconv.ParseUint(a, 10, 64)
	}
	if b != "" && err == nil {
		to, err = strconv.ParseUint(b, 10, 64)
	}
	if err != nil || from > to {
		return 0, 0, cli.Usagef("-%s %q: a number, or two like 10-20", name, text)
	}
	return from, to, nil
}

type dump struct {
	out      *bufio.Writer
	format   cli.Format
	records  bool
	byOffset bool
	from, to uint64
}

type (
	dumpedEntry struct {
		Index   uint64        `json:"index"`
		Term    uint64        `json:"term"`
		Type    string        `json:"type"`
		Time    string        `json:"time,omitempty"`
		Commit  uint64        `json:"commit_known_index"`
		Segment string        `json:"segment"`
		Place   int64         `json:"place"`
		Bytes   int           `json:"payload_bytes"`
		CRC     string        `json:"payload_crc"`
		Says    string        `json:"says,omitempty"`
		Servers []string      `json:"servers,omitempty"`
		Error   string        `json:"error,omitempty"`
		Batches []dumpedBatch `json:"batches,omitempty"`
	}
	dumpedBatch struct {
		Verdict  string        `json:"verdict"`
		Offset   *uint64       `json:"first_offset,omitempty"`
		Count    uint32        `json:"count"`
		Producer string        `json:"producer,omitempty"`
		Epoch    uint32        `json:"epoch"`
		Sequence uint64        `json:"first_sequence"`
		Key      string        `json:"request_key,omitempty"`
		Time     string        `json:"time,omitempty"`
		Bytes    int           `json:"bytes"`
		Records  []shownRecord `json:"records,omitempty"`
	}
)

var errEnough = errors.New("enough")

func (d *dump) run(ctx context.Context, o *replica.Offline) error {
	if d.format == cli.Table {
		fmt.Fprintf(d.out, "%-10s %-6s %-14s %-30s %-10s %-9s %-8s %s\n", "INDEX", "TERM", "TYPE", "TIME", "COMMIT", "BYTES", "CRC", "PLACE")
	}
	before := len(o.Findings())
	err := o.Entries(d.from, d.byOffset, func(e *replica.OfflineEntry) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !d.byOffset && e.Index < d.from {
			return nil
		}
		if !d.byOffset && e.Index > d.to {
			return errEnough
		}
		shown, past := d.shape(e)
		if past {
			return errEnough
		}
		if d.byOffset && len(shown.Batches) == 0 {
			return nil
		}
		return d.write(shown)
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	if err != nil {
		return err
	}
	if damage := o.Findings()[before:]; len(damage) > 0 {
		return fmt.Errorf("%d damaged places on the way; logd inspect verify shows them", len(damage))
	}
	return nil
}

// shape makes an entry what is shown of it. past: it lies beyond the offsets.
func (d *dump) shape(e *replica.OfflineEntry) (_ *dumpedEntry, past bool) {
	s := &dumpedEntry{
		Index: e.Index, Term: e.Term, Type: e.What, Time: timeOf(e.AppendedAt), Commit: e.Commit,
		Segment: base(e.Segment), Place: e.Place, Bytes: len(e.Data), CRC: fmt.Sprintf("%08x", e.PayloadCRC),
		Says: e.Control, Servers: peerNames(e.Peers),
	}
	if e.Err != nil {
		s.Error = e.Err.Error()
	}
	for i := range e.Batches {
		b := &e.Batches[i]
		has := b.Verdict == replica.VerdictAccepted
		if d.byOffset && (!has || b.FirstOffset+uint64(b.Count) <= d.from || b.FirstOffset > d.to) {
			past = past || has && b.FirstOffset > d.to
			continue
		}
		s.Batches = append(s.Batches, d.batch(b))
	}
	return s, past && len(s.Batches) == 0
}

func (d *dump) batch(b *replica.OfflineBatch) dumpedBatch {
	s := dumpedBatch{
		Verdict: b.Verdict, Count: b.Count, Epoch: b.Epoch, Sequence: b.FirstSeq, Time: timeOf(b.Timestamp), Bytes: len(b.Records),
	}
	if b.Producer != [16]byte{} {
		s.Producer = hex.EncodeToString(b.Producer[:])
	}
	if b.Key != [16]byte{} {
		s.Key = hex.EncodeToString(b.Key[:])
	}
	if b.Verdict == replica.VerdictAccepted || b.Verdict == "duplicate" {
		s.Offset = &b.FirstOffset
	}
	if !d.records {
		return s
	}
	rest := b.Records
	for i := range uint64(b.Count) {
		n, w := binary.Uvarint(rest)
		if w <= 0 || n > uint64(len(rest)-w) {
			break
		}
		var r logv1.Record
		if proto.Unmarshal(rest[w:w+int(n)], &r) != nil {
			r.Value = rest[w : w+int(n)]
		}
		r.Offset = b.FirstOffset + i
		s.Records = append(s.Records, shown(&r))
		rest = rest[w+int(n):]
	}
	return s
}

func (d *dump) write(e *dumpedEntry) error {
	if d.format == cli.JSON {
		line, err := json.Marshal(e)
		if err != nil {
			return err
		}
		_, err = d.out.Write(append(line, '\n'))
		return err
	}
	says := strings.TrimSpace(strings.Join([]string{e.Says, strings.Join(e.Servers, ", "), e.Error}, " "))
	fmt.Fprintf(d.out, "%-10d %-6d %-14s %-30s %-10d %-9d %-8s %s@%d\n", e.Index, e.Term, e.Type, e.Time, e.Commit, e.Bytes, e.CRC, e.Segment, e.Place)
	if says != "" {
		fmt.Fprintf(d.out, "    %s\n", says)
	}
	for i := range e.Batches {
		b := &e.Batches[i]
		at := "-"
		if b.Offset != nil {
			at = strconv.FormatUint(*b.Offset, 10)
		}
		who := ""
		if b.Producer != "" {
			who = fmt.Sprintf(" producer %s epoch %d sequence %d", b.Producer, b.Epoch, b.Sequence)
		}
		if b.Key != "" {
			who += " request key " + b.Key
		}
		fmt.Fprintf(d.out, "    %s offset %s, %d records, %d bytes%s\n", b.Verdict, at, b.Count, b.Bytes, who)
		for _, r := range b.Records {
			line, err := json.Marshal(r)
			if err != nil {
				return err
			}
			fmt.Fprintf(d.out, "        %s\n", line)
		}
	}
	return nil
}
