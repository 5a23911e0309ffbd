package replica

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
)

// An export is a header, batches in offset order, and an end, little endian:
//
//	header  magic 8B "LOGDEXP1" | version u32 = 1 | cluster uuid 36B | first offset u64
//	        | made at i64, unix ns | crc u32
//	batch   kind u8 = 1 | first offset u64 | count u32 | timestamp i64 | records bytes u32
//	        | crc u32, of the 25 bytes before | records | crc u32, of the records
//	end     kind u8 = 2 | next offset u64 | batches u64 | crc u32, of all before the end
//	        | crc u32, of the 21 bytes before
//
// records is count × {uvarint length, log.v1.Record}. Nothing follows the end.
// Offsets go on from one batch to the next without a gap.
const (
	exportMagic       = "LOGDEXP1"
	exportVersion     = 1
	exportHeaderBytes = 8 + 4 + 36 + 8 + 8 + 4
	exportBatchBytes  = 1 + 8 + 4 + 8 + 4 + 4
	exportEndBytes    = 1 + 8 + 8 + 4 + 4
	exportBatch       = 1
	exportEnd         = 2
)

// ExportError says what is wrong with an export, and where.
type ExportError struct {
	Place  int64 // bytes into it
	Reason string
}

func (e *ExportError) Error() string {
	return fmt.Sprintf("not a whole export: at place %d: %s", e.Place, e.Reason)
}

// ExportHeader begins an export.
type ExportHeader struct {
	Cluster string
	First   uint64 // offset of its first record
	MadeAt  int64  // unix ns
}

// ExportBatch is a batch of an export.
type ExportBatch struct {
	FirstOffset uint64
	Count       uint32
	Timestamp   int64 // unix ns
	Records     []byte
}

// Cut leaves the records before to, of which there is at least one.
func (e *ExportBatch) Cut(to uint64) {
	if e.FirstOffset+uint64(e.Count) <= to {
		return
	}
	count := to - e.FirstOffset
	e.Count, e.Records = uint32(count), cutRecords(e.Records, 0, count)
}

// ExportWriter writes an export, of records that begin at its header's First and go on
// without a gap. Only End makes it one.
type ExportWriter struct {
	w       *bufio.Writer
	sum     hash.Hash32 // of everything written
	next    uint64
	batches uint64
	buf     []byte
}

// NewExportWriter writes the header.
func NewExportWriter(w io.Writer, h ExportHeader) (*ExportWriter, error) {
	x := &ExportWriter{w: bufio.NewWriterSize(w, 256<<10), sum: crc32.New(castagnoli), next: h.First}
	b := append(x.buf, exportMagic...)
	b = binary.LittleEndian.AppendUint32(b, exportVersion)
	b = append(b, h.Cluster...)
	b = binary.LittleEndian.AppendUint64(b, h.First)
	b = binary.LittleEndian.AppendUint64(b, uint64(h.MadeAt))
	return x, x.write(summed(b, 0))
}

// summed appends the CRC of what b has from a place on.
func summed(b []byte, from int) []byte {
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[from:], castagnoli))
}

func (x *ExportWriter) write(b []byte) error {
	x.buf = b[:0]
	_, _ = x.sum.Write(b) // a hash does not fail
	_, err := x.w.Write(b)
	return err
}

// Batch writes a batch, and refuses one that a reader would.
func (x *ExportWriter) Batch(e *ExportBatch) error {
	switch {
	case e.FirstOffset != x.next:
		return fmt.Errorf("write export: offset %d where %d must come next", e.FirstOffset, x.next)
	case len(e.Records) > MaxBatchBytes:
		return fmt.Errorf("write export: a batch of %d bytes, more than %d", len(e.Records), MaxBatchBytes)
	}
	if err := checkRecords(e.Records, e.Count); err != nil {
		return fmt.Errorf("write export: records from offset %d on: %w", e.FirstOffset, err)
	}
	b := append(x.buf, exportBatch)
	b = binary.LittleEndian.AppendUint64(b, e.FirstOffset)
	b = binary.LittleEndian.AppendUint32(b, e.Count)
	b = binary.LittleEndian.AppendUint64(b, uint64(e.Timestamp))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(e.Records)))
	b = summed(b, 0)
	at := len(b)
	b = summed(append(b, e.Records...), at)
	x.next, x.batches = e.FirstOffset+uint64(e.Count), x.batches+1
	return x.write(b)
}

// Next is the offset after the last batch, and Batches how many there are.
func (x *ExportWriter) Next() uint64    { return x.next }
func (x *ExportWriter) Batches() uint64 { return x.batches }

// End writes the end.
func (x *ExportWriter) End() error {
	b := append(x.buf, exportEnd)
	b = binary.LittleEndian.AppendUint64(b, x.next)
	b = binary.LittleEndian.AppendUint64(b, x.batches)
	b = binary.LittleEndian.AppendUint32(b, x.sum.Sum32())
	return errors.Join(x.write(summed(b, 0)), x.w.Flush())
}

// ExportReader reads an export and checks every byte of it.
type ExportReader struct {
	Header ExportHeader

	r       *bufio.Reader
	sum     hash.Hash32 // of everything read before the end
	place   int64
	next    uint64
	batches uint64
	buf     []byte
}

// NewExportReader reads the header. *ExportError: r is no export.
func NewExportReader(r io.Reader) (*ExportReader, error) {
	x := &ExportReader{r: bufio.NewReaderSize(r, 256<<10), sum: crc32.New(castagnoli)}
	b, err := x.take(exportHeaderBytes)
	if err != nil {
		return nil, err
	}
	h := ExportHeader{Cluster: string(b[12:48]), First: binary.LittleEndian.Uint64(b[48:]), MadeAt: int64(binary.LittleEndian.Uint64(b[56:]))}
	switch {
	case string(b[:8]) != exportMagic:
		return nil, &ExportError{Reason: "it does not begin like one"}
	case !sound(b):
		return nil, &ExportError{Reason: "header checksum"}
	case binary.LittleEndian.Uint32(b[8:]) != exportVersion:
		return nil, &ExportError{Reason: fmt.Sprintf("version %d, not %d", binary.LittleEndian.Uint32(b[8:]), exportVersion)}
	case checkUUID(h.Cluster) != nil:
		return nil, &ExportError{Reason: fmt.Sprintf("cluster %q", h.Cluster)}
	}
	x.Header, x.next = h, h.First
	return x, nil
}

// sound says whether b ends with the CRC of what is before it.
func sound(b []byte) bool {
	n := len(b) - 4
	return crc32.Checksum(b[:n], castagnoli) == binary.LittleEndian.Uint32(b[n:])
}

// take reads n bytes, which are valid until the next call.
func (x *ExportReader) take(n int) ([]byte, error) {
	if cap(x.buf) < n {
		x.buf = make([]byte, n)
	}
	b := x.buf[:n]
	got, err := io.ReadFull(x.r, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, x.bad("it ends here, before its end")
	}
	if err != nil {
		return nil, fmt.Errorf("read export at %d: %w", x.place, err)
	}
	x.place += int64(got)
	_, _ = x.sum.Write(b) // a hash does not fail
	return b, nil
}

func (x *ExportReader) bad(reason string, args ...any) error {
	return &ExportError{Place: x.place, Reason: fmt.Sprintf(reason, args...)}
}

// Next returns the next batch, whose records are valid until the call after it.
// io.EOF: there was the end, and everything verified.
func (x *ExportReader) Next() (*ExportBatch, error) {
	kind, err := x.r.Peek(1)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return nil, fmt.Errorf("read export at %d: %w", x.place, err)
	case err != nil:
		return nil, x.bad("it ends here, before its end")
	case kind[0] == exportEnd:
		return nil, x.end()
	case kind[0] != exportBatch:
		return nil, x.bad("neither a batch nor the end")
	}
	b, err := x.take(exportBatchBytes)
	if err != nil {
		return nil, err
	}
	e := &ExportBatch{
		FirstOffset: binary.LittleEndian.Uint64(b[1:]), Count: binary.LittleEndian.Uint32(b[9:]), Timestamp: int64(binary.LittleEndian.Uint64(b[13:])),
	}
	n := binary.LittleEndian.Uint32(b[21:])
	switch {
	case !sound(b):
		return nil, x.bad("batch header checksum")
	case n > MaxBatchBytes:
		return nil, x.bad("a batch of %d bytes, more than %d", n, MaxBatchBytes)
	case e.FirstOffset != x.next || e.FirstOffset+uint64(e.Count) < e.FirstOffset:
		return nil, x.bad("offset %d where %d must come next", e.FirstOffset, x.next)
	}
	if b, err = x.take(int(n) + 4); err != nil {
		return nil, err
	}
	if !sound(b) {
		return nil, x.bad("checksum of the records from offset %d on", e.FirstOffset)
	}
	e.Records = b[:n]
	if err := checkRecords(e.Records, e.Count); err != nil {
		return nil, x.bad("records from offset %d on: %v", e.FirstOffset, err)
	}
	x.next, x.batches = e.FirstOffset+uint64(e.Count), x.batches+1
	return e, nil
}

func (x *ExportReader) end() error {
	sum := x.sum.Sum32()
	b, err := x.take(exportEndBytes)
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	switch {
	case !sound(b):
		return x.bad("checksum of the end")
	case le.Uint32(b[17:]) != sum:
		return x.bad("checksum of everything before the end")
	case le.Uint64(b[1:]) != x.next || le.Uint64(b[9:]) != x.batches:
		return x.bad("%d batches up to offset %d, where %d up to %d were read", le.Uint64(b[9:]), le.Uint64(b[1:]), x.batches, x.next)
	}
	if _, err := x.r.Peek(1); !errors.Is(err, io.EOF) {
		return x.bad("something follows the end")
	}
	return io.EOF
}
