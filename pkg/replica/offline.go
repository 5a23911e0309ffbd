package replica

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path"
	"slices"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/raftstore"
	"github.com/logd-io/logd/pkg/vfs"
	"github.com/logd-io/logd/pkg/vfs/overlay"
)

// What a finding may be about besides the files of the stores.
const (
	FindCluster commitlog.FindingKind = "cluster id"
	FindNode    commitlog.FindingKind = "node id"
	FindEntry   commitlog.FindingKind = "entry"
	FindTask    commitlog.FindingKind = "unfinished task"
	FindScrub   commitlog.FindingKind = "scrub note"
)

// RunningError says that a node has its directory open.
type RunningError struct{ Dir string }

func (e *RunningError) Error() string {
	return e.Dir + " is in use by a running node: stop it first"
}

// Offline is the directory of a node that is stopped. Everything is read
// through an overlay, so nothing in it changes. While it is held, no node
// starts there.
type Offline struct {
	NodeID  string     // "" when no configuration names a node with this directory's suffix
	Cluster string     // uuid, "" for none
	Task    *Task      // recover or import, begun and not finished; nil: none
	Scrub   *ScrubNote // how far the search for damage was; nil: nothing is known
	Store   *raftstore.Inspection

	below    vfs.FS
	home     string // the node's data directory
	dir      string // the replica's, within it
	suffix   string // of the node id
	locks    []io.Closer
	findings []commitlog.Finding
}

// OpenOffline looks at the node in the data directory home, whose replica is in
// the directory dir of it. *RunningError: the node runs. fs.ErrNotExist: there
// is none. Damage is no error; Findings has it.
func OpenOffline(fsys vfs.FS, home, dir string) (_ *Offline, err error) {
	o := &Offline{below: fsys, home: home, dir: path.Join(home, dir)}
	if _, err := fsys.Stat(o.dir); err != nil {
		return nil, fmt.Errorf("no node's directory: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, o.Close())
		}
	}()
	view := overlay.New(fsys)
	for _, name := range []string{path.Join(home, "lock"), path.Join(o.dir, lockFile)} {
		l, err := view.Lock(name)
		if errors.Is(err, vfs.ErrLocked) {
			return nil, &RunningError{Dir: home}
		}
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w", name, err)
		}
		o.locks = append(o.locks, l)
	}
	if o.Task, err = readTask(view, o.dir); err != nil {
		o.find(FindTask, path.Join(o.dir, taskFile), 0, err.Error())
	}
	if err := o.readNames(view); err != nil {
		return nil, err
	}
	if o.Scrub, err = readScrubNote(view, o.dir); err != nil {
		o.find(FindScrub, path.Join(o.dir, scrubFile), 0, err.Error())
	}
	if o.Store, err = raftstore.Inspect(view, o.dir, o.found); err != nil {
		return nil, err
	}
	for i := range o.Store.Checkpoints {
		o.named(o.Store.Checkpoints[i].Config)
	}
	return o, nil
}

// Close lets go of the directory.
func (o *Offline) Close() (err error) {
	if o.Store != nil {
		err = o.Store.Close()
	}
	for _, l := range slices.Backward(o.locks) {
		err = errors.Join(err, l.Close())
	}
	o.locks = nil
	return err
}

// Findings is the damage found so far, by Open and Verify.
func (o *Offline) Findings() []commitlog.Finding { return o.findings }

// found notes damage, once however often it is read.
func (o *Offline) found(f commitlog.Finding) {
	if !slices.Contains(o.findings, f) {
		o.findings = append(o.findings, f)
	}
}

func (o *Offline) find(kind commitlog.FindingKind, path string, index uint64, what string) {
	o.found(commitlog.Finding{Kind: kind, Path: path, Index: index, What: what})
}

// readNames reads who the node is.
func (o *Offline) readNames(view vfs.FS) error {
	for _, s := range []struct {
		kind  commitlog.FindingKind
		path  string
		value *string
		check func(string) error
	}{
		{FindCluster, path.Join(o.dir, clusterIDFile), &o.Cluster, checkUUID},
		{FindNode, path.Join(o.home, nodeIDFile), &o.suffix, func(s string) error { return checkID("n." + s) }},
	} {
		b, err := vfs.ReadFile(view, s.path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", s.path, err)
		}
		line, ended := strings.CutSuffix(string(b), "\n")
		if err := s.check(line); err != nil || !ended {
			o.find(s.kind, s.path, 0, fmt.Sprintf("%.80q is not what belongs there", b))
			continue
		}
		*s.value = line
	}
	return nil
}

// named looks for this node in a configuration.
func (o *Offline) named(c raft.Configuration) {
	for _, s := range c.Servers {
		if o.suffix != "" && strings.HasSuffix(string(s.ID), "."+o.suffix) {
			o.NodeID = string(s.ID)
		}
	}
}

// PeersOf are the servers of a checkpoint's configuration.
func PeersOf(c *raftstore.CheckpointInfo) []Peer { return peersOf(c.Config) }

func peersOf(c raft.Configuration) (ps []Peer) {
	for _, s := range c.Servers {
		ps = append(ps, Peer{ID: string(s.ID), Voter: s.Suffrage == raft.Voter})
	}
	slices.SortFunc(ps, func(a, b Peer) int { return strings.Compare(a.ID, b.ID) })
	return ps
}

// NextStart is what starting the node now would find, and do.
type NextStart struct {
	Refused  error // why it would not start, and then only Commit is known; nil: it would
	First    uint64
	Last     uint64
	LastTerm uint64
	Commit   uint64 // highest entry this node knows to be committed
	Lowest   uint64 // offsets, as far as the offset index goes
	Next     uint64
	Changes  []string // files that would be written or removed
}

// NextStart opens the stores in memory over the files, as a start would.
func (o *Offline) NextStart() (NextStart, error) {
	var n NextStart
	view := overlay.New(o.below)
	err := o.open(view, func(s *raftstore.Store) error {
		log := s.Log()
		st := log.Stats()
		n = NextStart{First: st.First, Last: st.Last, LastTerm: log.Start().Term, Commit: st.Committed, Lowest: st.Lowest, Next: st.Next}
		if st.Last >= st.First {
			e, err := log.Entry(st.Last)
			if err != nil {
				return err
			}
			n.LastTerm = e.Term
		}
		return nil
	})
	if err != nil {
		n = NextStart{Refused: err, Last: math.MaxUint64}
	} else {
		n.Changes = view.Changed()
	}
	// What the index leads to was applied, and so committed.
	err = o.Store.Log.OffsetRecords(func(r *commitlog.OffsetRecord) error {
		if r.Index <= n.Last {
			n.Commit = max(n.Commit, r.Index)
		}
		return nil
	})
	if err == nil {
		err = o.identify()
	}
	if n.Refused != nil {
		n.Last = 0
	}
	return n, err
}

// identify looks for the node's id behind the newest checkpoint.
func (o *Offline) identify() error {
	if o.NodeID != "" || o.suffix == "" {
		return nil
	}
	from := uint64(0)
	if c := o.Store.AtOrBefore(math.MaxUint64); c != nil {
		from = c.Index + 1
	}
	return o.Store.Log.Frames(from, func(f *commitlog.Frame) error {
		if raft.LogType(f.Type) == raft.LogConfiguration && !f.Damaged {
			c, _ := raftstore.DecodeConfiguration(f.Data) // one that does not decode names nobody
			o.named(c)
		}
		return nil
	})
}

// open opens the stores over a view of the files and gives them to use. A
// failure of the stores, which ends the goroutine that meets it, is an error.
func (o *Offline) open(view vfs.FS, use func(*raftstore.Store) error) error {
	return guarded(func(fail func(error)) error {
		return opened(raftstore.Options{FS: view, Dir: o.dir, OnFatal: fail}, use)
	})
}

// opened opens a store, gives it to use, and closes it, also when use does not
// return.
func opened(options raftstore.Options, use func(*raftstore.Store) error) (err error) {
	s, err := raftstore.Open(options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return use(s)
}

// guarded runs f on a goroutine of its own, which a store that fails may end
// after it has passed the fault to fail.
func guarded(f func(fail func(error)) error) error {
	var fault error // written by f's goroutine before it ends
	result := make(chan error, 1)
	go func() {
		defer close(result)
		result <- f(func(err error) { fault = err })
	}()
	if err, ok := <-result; ok {
		return err
	}
	return &FatalError{Err: fault}
}
