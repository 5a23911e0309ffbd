package raftstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/vfs"
)

// The kinds of findings in the files of this package.
const (
	FindStable     commitlog.FindingKind = "raft state"
	FindCheckpoint commitlog.FindingKind = "checkpoint"
)

// Inspection looks at the files of a store that nobody has open, as they are.
type Inspection struct {
	Log *commitlog.Inspection

	Term     uint64 // Raft's
	VoteTerm uint64 // the newest term this node voted in, 0: none
	Vote     string // whom it voted for then

	Checkpoints []CheckpointInfo // by index, a copy behind what it is a copy of

	fs  vfs.FS
	dir string
}

// CheckpointInfo describes a checkpoint file.
type CheckpointInfo struct {
	File        string
	Index, Term uint64
	Next        uint64 // offset after the last record it covers
	LogBytes    uint64 // payload bytes since the beginning of the log
	ConfigIndex uint64
	Config      raft.Configuration
	Bytes       int64
	Reset       bool   // it was installed, and emptied the log
	Copy        bool   // the second copy of the one the log starts at
	Damage      string // "": every byte verifies
	header      *checkpoint
}

// Inspect reads all files of the store in dir but its segments and offset
// files, whose headers it reads. It tells found of each piece of damage; its own
// error is a disk that cannot be read.
func Inspect(fsys vfs.FS, dir string, found func(commitlog.Finding)) (_ *Inspection, err error) {
	n := &Inspection{fs: fsys, dir: dir}
	if err := n.readStable(found); err != nil {
		return nil, err
	}
	if err := n.readCheckpoints(found); err != nil {
		return nil, err
	}
	if n.Log, err = commitlog.Inspect(fsys, path.Join(dir, logDir), found); err != nil {
		return nil, err
	}
	n.chain(found)
	return n, nil
}

// Close closes the files.
func (n *Inspection) Close() error { return n.Log.Close() }

// readStable reads both slots and the room around them.
func (n *Inspection) readStable(found func(commitlog.Finding)) error {
	p := path.Join(n.dir, stableFile)
	find := func(place int64, what string) {
		found(commitlog.Finding{Kind: FindStable, Path: p, Place: place, What: what})
	}
	b, err := vfs.ReadFile(n.fs, p)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := n.fs.Stat(path.Join(n.dir, logDir)); err == nil {
			find(0, "missing, but there is a log")
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", p, err)
	}
	if len(b) < slotPlace+slotBytes {
		find(0, fmt.Sprintf("%d bytes", len(b)))
		return nil
	}
	var newest uint64
	for slot := range uint64(2) {
		at := slot * slotPlace
		seq, vals, err := decodeSlot(b[at : at+slotBytes])
		if err != nil || seq%2 != slot {
			find(int64(at), fmt.Sprintf("slot %d does not verify", slot))
			continue
		}
		if seq < newest {
			continue
		}
		newest = seq
		u64 := func(key string) uint64 {
			if v := vals[key]; len(v) == 8 {
				return binary.BigEndian.Uint64(v)
			}
			return 0
		}
		n.Term, n.VoteTerm, n.Vote = u64(keyCurrentTerm), u64(keyLastVoteTerm), string(vals[keyLastVoteCand])
	}
	for _, gap := range [][2]int{{slotBytes, slotPlace}, {slotPlace + slotBytes, len(b)}} {
		if i := slices.IndexFunc(b[gap[0]:gap[1]], func(c byte) bool { return c != 0 }); i >= 0 {
			find(int64(gap[0]+i), "something stands where nothing is")
		}
	}
	return nil
}

// readCheckpoints reads every checkpoint file whole.
func (n *Inspection) readCheckpoints(found func(commitlog.Finding)) error {
	dir := path.Join(n.dir, checkpointDir)
	names, err := n.fs.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list %s: %w", dir, err)
	}
	for _, name := range names {
		if !isCheckpoint(name) {
			if !strings.HasSuffix(name, vfs.TempSuffix) {
				found(commitlog.Finding{Kind: commitlog.FindFile, Path: path.Join(dir, name), What: "not a checkpoint's name"})
			}
			continue
		}
		b, err := vfs.ReadFile(n.fs, path.Join(dir, name))
		if err != nil {
			return fmt.Errorf("read %s: %w", path.Join(dir, name), err)
		}
		c := CheckpointInfo{File: name, Bytes: int64(len(b)), Copy: strings.HasSuffix(name, copySuffix)}
		h, err := decodeHeader(b)
		if err == nil {
			c.header = h
			c.Index, c.Term, c.Next, c.LogBytes, c.ConfigIndex, c.Reset = h.index, h.term, h.next, h.bytes, h.configIndex, h.reset
			if h.id()+checkpointSuffix != strings.TrimSuffix(name, copySuffix) {
				err = fmt.Errorf("it is checkpoint %s", h.id())
			} else {
				c.Config, _, err = h.decodeBody(b)
			}
		} else {
			_, _ = fmt.Sscanf(name, "%d-%d", &c.Index, &c.Term)
		}
		if err != nil {
			c.Damage = err.Error()
			found(commitlog.Finding{Kind: FindCheckpoint, Path: path.Join(dir, name), Index: c.Index, What: c.Damage})
		}
		n.Checkpoints = append(n.Checkpoints, c)
	}
	slices.SortStableFunc(n.Checkpoints, func(a, b CheckpointInfo) int { return int(min(max(int64(a.Index)-int64(b.Index), -1), 1)) })
	return nil
}

// chain holds the checkpoints against the log's start.
func (n *Inspection) chain(found func(commitlog.Finding)) {
	start := n.Log.Start
	if start.Index == 0 {
		return
	}
	var there []CheckpointInfo
	for _, c := range n.Checkpoints {
		if c.Index == start.Index {
			there = append(there, c)
		}
	}
	dir := path.Join(n.dir, checkpointDir)
	find := func(what string) {
		found(commitlog.Finding{Kind: FindCheckpoint, Path: dir, Index: start.Index, What: what})
	}
	switch {
	case len(there) == 0:
		find(fmt.Sprintf("there is none at entry %d, which the log starts after: no other node can be brought up from this one", start.Index))
		return
	case len(there) == 1:
		find(fmt.Sprintf("the one at entry %d, which the log starts after, is there once and not twice", start.Index))
	}
	for _, c := range there {
		if c.Damage == "" && (c.Term != start.Term || c.Next != start.Offset) {
			find(fmt.Sprintf("%s is of term %d and offset %d, but the log starts after term %d at offset %d", c.File, c.Term, c.Next, start.Term, start.Offset))
		}
	}
}

// State gives the state in an undamaged checkpoint.
func (n *Inspection) State(c *CheckpointInfo) ([]byte, error) {
	b, err := vfs.ReadFile(n.fs, path.Join(n.dir, checkpointDir, c.File))
	if err == nil {
		_, b, err = c.header.decodeBody(b)
	}
	if err != nil {
		return nil, fmt.Errorf("read checkpoint %s: %w", c.File, err)
	}
	return bytes.Clone(b), nil
}

// Base is an undamaged checkpoint at the log's start; nil when there is none.
func (n *Inspection) Base() *CheckpointInfo { return n.AtOrBefore(n.Log.Start.Index) }

// AtOrBefore is the newest undamaged checkpoint at or below entry index and not
// below the start; nil when there is none.
func (n *Inspection) AtOrBefore(index uint64) *CheckpointInfo {
	for i := len(n.Checkpoints) - 1; i >= 0; i-- {
		if c := &n.Checkpoints[i]; c.Damage == "" && c.Index <= index && c.Index >= n.Log.Start.Index {
			return c
		}
	}
	return nil
}
