package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/logd-io/logd/pkg/commitlog"
)

// Exported says what an export holds: the records [First, Next).
type Exported struct {
	First, Next uint64
	Batches     uint64
	Commit      uint64 // entry up to which this node knows the log to be committed
}

// Export writes the committed records [from, to) to w; from 0 means the lowest
// there is, to math.MaxUint64 as far as this node knows. The cluster may have
// newer ones. Damage, or a record that is not there, is an error, and what was
// written then has no end and is no export.
func (o *Offline) Export(w io.Writer, from, to uint64, progress func(index, last uint64) error) (x Exported, err error) {
	if x.Commit, err = o.committed(); err != nil {
		return x, err
	}
	lowest, err := o.lowestOffset()
	if err != nil {
		return x, err
	}
	if from == 0 {
		from = lowest
	}
	if from < lowest || from > to {
		return x, &commitlog.OutOfRangeError{Offset: from, Lowest: lowest, Next: to}
	}
	x.First, x.Next = from, from
	out, err := NewExportWriter(w, ExportHeader{Cluster: o.Cluster, First: from, MadeAt: time.Now().UnixNano()})
	if err != nil {
		return x, err
	}
	err = o.Entries(from, true, func(e *OfflineEntry) error {
		if e.Index > x.Commit || x.Next >= to {
			return errEnough
		}
		if progress != nil {
			if err := progress(e.Index, x.Commit); err != nil {
				return err
			}
		}
		if e.Err != nil || e.Damaged {
			return fmt.Errorf("entry %d is damaged; logd inspect verify says how", e.Index)
		}
		return o.exportEntry(out, &x, to, e)
	})
	if err != nil && !errors.Is(err, errEnough) {
		return x, err
	}
	if to != math.MaxUint64 && x.Next < to {
		return x, fmt.Errorf("offsets up to %d were asked for, but this node knows them to be committed up to %d only", to, x.Next)
	}
	return x, out.End()
}

func (o *Offline) exportEntry(out *ExportWriter, x *Exported, to uint64, e *OfflineEntry) error {
	for i := range e.Batches {
		b := &e.Batches[i]
		if b.Verdict == VerdictUnknown {
			return fmt.Errorf("entries before entry %d are missing; logd inspect verify says which", e.Index)
		}
		end := b.FirstOffset + uint64(b.Count)
		if b.Verdict != VerdictAccepted || end <= x.Next || b.FirstOffset >= to {
			continue
		}
		if b.FirstOffset > x.Next {
			return fmt.Errorf("offset %d is missing before entry %d", x.Next, e.Index)
		}
		first, last := x.Next, min(end, to)
		records := cutRecords(b.Records, first-b.FirstOffset, last-b.FirstOffset)
		if err := out.Batch(&ExportBatch{FirstOffset: first, Count: uint32(last - first), Timestamp: b.Timestamp, Records: records}); err != nil {
			return fmt.Errorf("write export: %w", err)
		}
		x.Next, x.Batches = last, x.Batches+1
	}
	return nil
}

// cutRecords are the records [from, to) of well-formed ones.
func cutRecords(records []byte, from, to uint64) []byte {
	rest := records
	var begin int
	for i := range to {
		if i == from {
			begin = len(records) - len(rest)
		}
		n, w := binary.Uvarint(rest)
		rest = rest[min(w+int(n), len(rest)):]
	}
	return records[begin : len(records)-len(rest)]
}

// committed is the highest entry that this directory says to be committed.
func (o *Offline) committed() (uint64, error) {
	next, err := o.NextStart()
	if err != nil {
		return 0, err
	}
	commit := max(next.Commit, o.Store.Log.Start.Index)
	for _, c := range o.Store.Checkpoints {
		if c.Damage == "" {
			commit = max(commit, c.Index)
		}
	}
	return commit, nil
}

// lowestOffset is the lowest that may be read, as far as checkpoints tell.
func (o *Offline) lowestOffset() (uint64, error) {
	lowest := o.Store.Log.Start.Offset
	if c := o.Store.AtOrBefore(math.MaxUint64); c != nil {
		m, err := o.machineAt(c)
		if err != nil {
			return 0, err
		}
		lowest = max(lowest, m.lowest)
	}
	return lowest, nil
}
