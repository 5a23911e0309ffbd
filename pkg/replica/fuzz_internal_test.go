package replica

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/internal/testutil"
)

func FuzzPreface(f *testing.F) {
	f.Add(preface{cluster: "c", from: "n1.00000001", to: "n2.00000002"}.encode())
	f.Add([]byte(prefaceMagic + "\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		var p preface
		var err error
		require.Less(t, testutil.Allocated(func() { p, err = readPreface(r) }), uint64(1<<20))
		if err == nil {
			require.Equal(t, b[:len(b)-r.Len()], p.encode(), "exactly the preface is read")
			_ = p.check("c", "n2.00000002", "n1")
		}
	})
}

func FuzzRecordFraming(f *testing.F) {
	f.Add([]byte{1, 'a', 0}, uint32(2))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, uint32(1))
	f.Fuzz(func(t *testing.T, b []byte, count uint32) {
		if checkRecords(b, count) != nil {
			return
		}
		rest, n := b, uint32(0)
		for len(rest) > 0 {
			l, w := binary.Uvarint(rest)
			rest = rest[w+int(l):]
			n++
		}
		require.Equal(t, count, n)
		for i := range min(count, 5) {
			head, tail := cutRecords(b, 0, uint64(i)), cutRecords(b, uint64(i), uint64(count))
			require.Equal(t, b, append(bytes.Clone(head), tail...))
		}
	})
}

// What passes as an export is one: written again it is the same.
func FuzzExport(f *testing.F) {
	export := func(first uint64, batches ...ExportBatch) []byte {
		var b bytes.Buffer
		x, err := NewExportWriter(&b, ExportHeader{Cluster: "00000000-0000-4000-8000-000000000000", First: first, MadeAt: 5})
		if err != nil {
			f.Fatal(err)
		}
		for i := range batches {
			if err := x.Batch(&batches[i]); err != nil {
				f.Fatal(err)
			}
		}
		if err := x.End(); err != nil {
			f.Fatal(err)
		}
		return b.Bytes()
	}
	f.Add(export(0))
	f.Add(export(7, ExportBatch{FirstOffset: 7, Count: 2, Timestamp: 1, Records: []byte{1, 'a', 0}}, ExportBatch{FirstOffset: 9, Count: 1, Records: []byte{0}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		repair(b)
		var batches []ExportBatch
		var h ExportHeader
		var err error
		used := testutil.Allocated(func() {
			var x *ExportReader
			if x, err = NewExportReader(bytes.NewReader(b)); err != nil {
				return
			}
			h = x.Header
			for {
				var e *ExportBatch
				if e, err = x.Next(); err != nil {
					return
				}
				e.Records = bytes.Clone(e.Records)
				batches = append(batches, *e)
			}
		})
		require.Less(t, used, uint64(3<<20+64*len(b)), "bytes allocated for %d", len(b))
		var bad *ExportError
		if !errors.Is(err, io.EOF) {
			require.ErrorAs(t, err, &bad)
			return
		}
		var again bytes.Buffer
		x, err := NewExportWriter(&again, h)
		require.NoError(t, err)
		for i := range batches {
			require.NoError(t, x.Batch(&batches[i]))
		}
		require.NoError(t, x.End())
		require.Equal(t, b, again.Bytes())
	})
}

// repair puts the checksums of what may be an export right, so that bytes get
// past them.
func repair(b []byte) {
	sum := func(from, to int) {
		binary.LittleEndian.PutUint32(b[to:], crc32.Checksum(b[from:to], castagnoli))
	}
	if len(b) < exportHeaderBytes {
		return
	}
	sum(0, exportHeaderBytes-4)
	for at := exportHeaderBytes; at < len(b); {
		switch {
		case b[at] == exportBatch && len(b)-at >= exportBatchBytes:
			sum(at, at+exportBatchBytes-4)
			n := int(binary.LittleEndian.Uint32(b[at+21:]))
			records := at + exportBatchBytes
			if n > len(b)-records-4 {
				return
			}
			sum(records, records+n)
			at = records + n + 4
		case b[at] == exportEnd && len(b)-at >= exportEndBytes:
			binary.LittleEndian.PutUint32(b[at+17:], crc32.Checksum(b[:at], castagnoli))
			sum(at, at+exportEndBytes-4)
			return
		default:
			return
		}
	}
}

func FuzzTask(f *testing.F) {
	b, err := seal(&Task{Kind: TaskRecover, Cluster: "c", NodeID: "n1.00000001", Index: 5, Term: 2})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[:len(b)-10])
	f.Fuzz(func(t *testing.T, line []byte) { fuzzSealed[Task](t, line) })
}

func FuzzScrubNote(f *testing.F) {
	now := time.Unix(1_700_000_000, 5).UTC()
	b, err := seal(&ScrubNote{Passes: 3, Finished: now, Began: now, Position: 5, Bytes: 2, Damaged: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[:len(b)-10])
	f.Fuzz(func(t *testing.T, line []byte) { fuzzSealed[ScrubNote](t, line) })
}

// fuzzSealed reads line as a small file, as it is and with the right checksum: what
// is read can be written, and is then read as the same.
func fuzzSealed[T any](t *testing.T, line []byte) {
	_ = unseal("f", line, new(T))
	b := append(bytes.Clone(line), '\n')
	b = append(b, []byte(hex8(crc32.Checksum(line, castagnoli))+"\n")...)
	v, same := new(T), new(T)
	if unseal("f", b, v) != nil {
		return
	}
	again, err := seal(v)
	require.NoError(t, err)
	require.NoError(t, unseal("f", again, same))
	require.Equal(t, v, same)
}

func hex8(v uint32) string {
	const digits = "0123456789abcdef"
	b := make([]byte, 8)
	for i := range b {
		b[i] = digits[v>>(28-4*i)&15]
	}
	return string(b)
}
