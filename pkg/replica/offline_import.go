package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"time"

	"github.com/hashicorp/raft"

	"github.com/logd-io/logd/pkg/raftstore"
	"github.com/logd-io/logd/pkg/vfs"
)

// importCallBytes bounds what an import stores with one sync.
const importCallBytes = 4 << 20

// Import says what to make of an export.
type Import struct {
	FS      vfs.FS
	Home    string // the data directory to make; absent or empty
	Dir     string // the replica's, within it
	Name    string // the certificate name of the node
	Cluster string // uuid of the new cluster
	// SegmentBytes as in Config.
	SegmentBytes int64
	Progress     func(next uint64) error // told of offsets; an error ends the import; may be nil
}

// Imported says what was made.
type Imported struct {
	NodeID      string
	First, Next uint64 // the records [First, Next) are readable
}

// Run makes a data directory of a new cluster's one node, which has the records
// of the export at the offsets they had. Until it has returned without an error
// no node starts there: the directory says that it is unfinished. An export
// that is not whole and sound is an *ExportError.
func (im Import) Run(from io.Reader) (out Imported, err error) {
	if err := errors.Join(checkUUID(im.Cluster), checkID(im.Name+".00000000")); err != nil {
		return out, err
	}
	names, err := im.FS.List(im.Home)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return out, err
	}
	if len(names) > 0 {
		return out, fmt.Errorf("%s is not empty: an import makes a new data directory", im.Home)
	}
	x, err := NewExportReader(from)
	if err != nil {
		return out, err // nothing was made yet
	}
	dir := path.Join(im.Home, im.Dir)
	if err := im.FS.MkdirAll(dir); err != nil {
		return out, fmt.Errorf("create %s: %w", dir, err)
	}
	for _, name := range []string{path.Join(im.Home, "lock"), path.Join(dir, lockFile)} {
		l, err := im.FS.Lock(name)
		if err != nil {
			return out, fmt.Errorf("lock %s: %w", name, err)
		}
		defer func() { err = errors.Join(err, l.Close()) }()
	}
	t := &Task{Kind: TaskImport, Cluster: im.Cluster, Former: x.Header.Cluster}
	if err := t.begin(im.FS, dir); err != nil {
		return out, err
	}
	if out.NodeID, err = LoadNodeID(im.FS, im.Home, im.Name); err != nil {
		return out, err
	}
	err = guarded(func(fail func(error)) error {
		return opened(raftstore.Options{FS: im.FS, Dir: dir, SegmentBytes: im.SegmentBytes, OnFatal: fail}, func(s *raftstore.Store) error {
			i := &importer{im: im, store: s, x: x}
			return i.run(out.NodeID)
		})
	})
	if err != nil {
		return out, err
	}
	out.First, out.Next = x.Header.First, x.next
	if err := vfs.WriteFileAtomic(im.FS, path.Join(dir, clusterIDFile), []byte(im.Cluster+"\n")); err != nil {
		return out, fmt.Errorf("write %s: %w", clusterIDFile, err)
	}
	return out, t.end(im.FS, dir)
}

// importer fills a store as a cluster of one would.
type importer struct {
	im     Import
	store  *raftstore.Store
	x      *ExportReader
	fsm    *fsm
	config raft.Configuration

	data    []byte // batches of the entry being gathered
	batches int
	logs    []*raft.Log
	bytes   int    // of logs
	index   uint64 // of the last entry
}

const (
	// importTerm is the term of everything imported; the first election has the
	// next.
	importTerm = 1
	// importIndex is the entry the log starts after. It is not 1: a node that has
	// nothing gets a leader's entries from 1 on, if that one can be read, and not
	// the checkpoint; and what it would read is the entry the log starts after.
	importIndex = 2
)

func (i *importer) run(id string) error {
	i.config.Servers = []raft.Server{{Suffrage: raft.Voter, ID: raft.ServerID(id), Address: raft.ServerAddress(id)}}
	if err := i.begin(); err != nil {
		return err
	}
	for {
		b, err := i.x.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := i.add(b); err != nil {
			return err
		}
	}
	return errors.Join(i.entry(), i.flush(), i.checkpoint())
}

// begin installs the checkpoint that the log starts at, with the configuration
// and the first offset.
func (i *importer) begin() error {
	m := newMachine()
	m.cluster, m.applied, m.term, m.next, m.lowest = i.im.Cluster, importIndex, importTerm, i.x.Header.First, i.x.Header.First
	if err := i.store.SetUint64([]byte("CurrentTerm"), importTerm); err != nil {
		return err
	}
	err := i.store.Install(raftstore.Installed{Index: importIndex, Term: importTerm, Next: m.next, Config: i.config, ConfigIndex: importIndex, State: m.encode()})
	i.index = importIndex
	i.fsm = &fsm{log: i.store.Log(), cluster: i.im.Cluster, fail: i.store.Fail, moved: func(due) {}, m: m,
		checkpointEntries: CheckpointEntries, checkpointBytes: CheckpointBytes, ckpt: progress{index: importIndex}}
	return err
}

// add puts a batch into the entry being gathered.
func (i *importer) add(b *ExportBatch) error {
	h := header{count: b.Count, timestamp: b.Timestamp}
	if i.batches > 0 && len(i.data)+headerSize(false)+len(b.Records) > EntryBytes {
		if err := i.entry(); err != nil {
			return err
		}
	}
	i.data = append(appendHeader(i.data, &h, len(b.Records)), b.Records...)
	i.batches++
	if i.im.Progress != nil {
		return i.im.Progress(b.FirstOffset + uint64(b.Count))
	}
	return nil
}

// entry makes an entry of what was gathered.
func (i *importer) entry() error {
	if i.batches == 0 {
		return nil
	}
	data := binary.AppendUvarint([]byte{kindData}, uint64(i.batches))
	data = append(data, i.data...)
	i.index++
	i.logs = append(i.logs, &raft.Log{Index: i.index, Term: importTerm, Type: raft.LogCommand, Data: data, AppendedAt: time.Now()})
	i.bytes += len(data)
	i.data, i.batches = i.data[:0], 0
	if i.bytes < importCallBytes {
		return nil
	}
	return i.flush()
}

// flush stores and applies the entries.
func (i *importer) flush() error {
	if len(i.logs) == 0 {
		return nil
	}
	if err := i.store.StoreLogs(i.logs); err != nil {
		return err
	}
	i.fsm.ApplyBatch(i.logs)
	i.logs, i.bytes = nil, 0
	if i.fsm.checkpointDue() {
		return i.checkpoint()
	}
	return nil
}

// checkpoint takes one of what is applied.
func (i *importer) checkpoint() error {
	if i.fsm.applied.Load() == 0 {
		return nil // nothing but what the log starts at
	}
	snap, err := i.fsm.Snapshot()
	if err != nil {
		return err
	}
	sink, err := i.store.Snapshots().Create(raft.SnapshotVersionMax, i.index, importTerm, i.config, importIndex, nil)
	if err != nil {
		return err
	}
	if err := errors.Join(snap.Persist(sink), sink.Close()); err != nil {
		return err
	}
	i.fsm.checkpointed()
	return nil
}

// CheckExport reads a whole export and says what is in it.
func CheckExport(r io.Reader) (h ExportHeader, next uint64, err error) {
	x, err := NewExportReader(r)
	if err != nil {
		return h, 0, err
	}
	for err == nil {
		_, err = x.Next()
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return x.Header, x.next, err
}
