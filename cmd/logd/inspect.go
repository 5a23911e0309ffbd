package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/logd-io/logd/internal/cli"
	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/raftstore"
	"github.com/logd-io/logd/pkg/replica"
	"github.com/logd-io/logd/pkg/vfs"
)

// raftDir is where in its data directory the agent keeps the log.
const raftDir = "raft"

// openOffline opens the directory of a stopped node.
func openOffline(args []string) (*replica.Offline, error) {
	if len(args) != 1 {
		return nil, cli.Usagef("exactly one data directory is needed: data_dir of the node's configuration")
	}
	o, err := replica.OpenOffline(vfs.OS{}, args[0], raftDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is no data directory of a node: there is no %s in it", args[0], raftDir)
	}
	return o, err
}

// The shapes of -format json.
type (
	inspected struct {
		DataDir     string             `json:"data_dir"`
		NodeID      string             `json:"node_id"`
		Cluster     string             `json:"cluster_id"`
		Unfinished  string             `json:"unfinished,omitempty"`
		Term        uint64             `json:"term"`
		VotedFor    string             `json:"voted_for,omitempty"`
		VotedIn     uint64             `json:"voted_term,omitempty"`
		Start       inspectedStart     `json:"start"`
		DurableEnd  *inspectedEnd      `json:"durable_end"` // null: absent or unreadable
		Scrub       *inspectedScrub    `json:"scrub"`       // null: nothing is known
		NextStart   inspectedNext      `json:"next_start"`
		Segments    []inspectedSegment `json:"segments"`
		Offsets     []inspectedOffsets `json:"offset_files"`
		Checkpoints []inspectedCkpt    `json:"checkpoints"`
		Damage      []inspectedDamage  `json:"damage"`
	}
	inspectedScrub struct {
		Passes   uint64    `json:"passes"` // finished
		Finished time.Time `json:"finished,omitzero"`
		Began    time.Time `json:"began,omitzero"` // the pass that was under way; absent: none was
		Index    uint64    `json:"next_index,omitempty"`
		Bytes    uint64    `json:"read_bytes,omitempty"`
		Damaged  uint64    `json:"damaged_entries"`
	}
	inspectedStart struct {
		Index  uint64 `json:"index"`
		Term   uint64 `json:"term"`
		Offset uint64 `json:"offset"`
	}
	inspectedEnd struct {
		Index   uint64 `json:"index"`
		Term    uint64 `json:"term"`
		Segment string `json:"segment_id"`
		Place   int64  `json:"place"`
	}
	inspectedNext struct {
		Refused     string `json:"refused,omitempty"`
		First       uint64 `json:"first_index"`
		Last        uint64 `json:"last_index"`
		LastTerm    uint64 `json:"last_term"`
		CommitKnown uint64 `json:"commit_known_index"`
		Lowest      uint64 `json:"lowest_offset"`
		Next        uint64 `json:"next_offset"`
	}
	inspectedSegment struct {
		File  string `json:"file"`
		ID    string `json:"id"`
		First uint64 `json:"first_index"`
		Last  uint64 `json:"last_index"`
		Bytes int64  `json:"bytes"`
		State string `json:"state"`
	}
	inspectedOffsets struct {
		File  string `json:"file"`
		First uint64 `json:"first_offset"`
		Bytes int64  `json:"bytes"`
	}
	inspectedCkpt struct {
		File     string   `json:"file"`
		Index    uint64   `json:"index"`
		Term     uint64   `json:"term"`
		Next     uint64   `json:"next_offset"`
		Servers  []string `json:"servers"`
		Bytes    int64    `json:"bytes"`
		Verified bool     `json:"verified"`
	}
	inspectedDamage struct {
		Kind        string `json:"kind"`
		File        string `json:"file"`
		Place       int64  `json:"place"`
		Index       uint64 `json:"index,omitempty"`
		What        string `json:"what"`
		Consequence string `json:"consequence"`
	}
)

// listing gathers everything list shows.
func listing(dir string, o *replica.Offline, next replica.NextStart) inspected {
	log := o.Store.Log
	d := inspected{
		DataDir: dir, NodeID: o.NodeID, Cluster: o.Cluster,
		Term: o.Store.Term, VotedFor: o.Store.Vote, VotedIn: o.Store.VoteTerm,
		Start: inspectedStart{log.Start.Index, log.Start.Term, log.Start.Offset},
		NextStart: inspectedNext{
			First: next.First, Last: next.Last, LastTerm: next.LastTerm, CommitKnown: next.Commit, Lowest: next.Lowest, Next: next.Next,
		},
		Segments: []inspectedSegment{}, Offsets: []inspectedOffsets{}, Checkpoints: []inspectedCkpt{}, Damage: []inspectedDamage{},
	}
	if n := o.Scrub; n != nil {
		d.Scrub = &inspectedScrub{n.Passes, n.Finished, n.Began, n.Position, n.Bytes, n.Damaged}
	}
	if o.Task != nil {
		d.Unfinished = o.Task.Kind
	}
	if next.Refused != nil {
		d.NextStart.Refused = next.Refused.Error()
	}
	if e := log.End; e != nil {
		d.DurableEnd = &inspectedEnd{e.Index, e.Term, segmentID(e.Segment), e.Place}
	}
	for _, s := range log.Segments {
		last := s.Last
		if s.State == commitlog.SegmentActive && next.Refused == nil {
			last = next.Last
		}
		d.Segments = append(d.Segments, inspectedSegment{s.File, segmentID(s.ID), s.First, last, s.Bytes, string(s.State)})
	}
	for _, f := range log.Offsets {
		d.Offsets = append(d.Offsets, inspectedOffsets{f.File, f.First, f.Bytes})
	}
	for i := range o.Store.Checkpoints {
		c := &o.Store.Checkpoints[i]
		d.Checkpoints = append(d.Checkpoints, inspectedCkpt{c.File, c.Index, c.Term, c.Next, servers(c), c.Bytes, c.Damage == ""})
	}
	return d
}

func servers(c *raftstore.CheckpointInfo) []string { return peerNames(replica.PeersOf(c)) }

func peerNames(peers []replica.Peer) []string {
	names := []string{}
	for _, p := range peers {
		if !p.Voter {
			p.ID += " (non-voter)"
		}
		names = append(names, p.ID)
	}
	return names
}

func segmentID(id uint64) string { return fmt.Sprintf("%016x", id) }

// damages are the findings as they are shown.
func damages(v *replica.Verdict) []inspectedDamage {
	out := []inspectedDamage{}
	for _, f := range v.Findings {
		out = append(out, inspectedDamage{string(f.Kind), f.Path, f.Place, f.Index, f.What, v.Consequence(f)})
	}
	return out
}

// writeDamages writes them for a person.
func writeDamages(env cli.Env, list []inspectedDamage) {
	for _, d := range list {
		at := ""
		if d.Index > 0 {
			at = fmt.Sprintf(" (entry %d)", d.Index)
		}
		fmt.Fprintf(env.Stdout, "%s: %s at place %d%s: %s\n    %s\n", d.File, d.Kind, d.Place, at, d.What, d.Consequence)
	}
}

func timeOf(ns int64) string {
	if ns == 0 {
		return ""
	}
	return time.Unix(0, ns).UTC().Format(time.RFC3339Nano)
}

func base(file string) string { return filepath.Base(file) }
