package main

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"path"
)

// The checks that catch bugs.
const (
	byCalls  = "calls"  // a call of the workload itself is answered wrongly
	byCrash  = "crash"  // a state that a crash left
	byDamage = "damage" // a flipped bit in what is acknowledged
)

// bug is a planted bug, and which checks must catch it.
type bug struct {
	name, what string
	checks     string // one of them catches it
	plant      func(*config)
}

// lying plants a bug by a filesystem that does not do what it is told; each
// session, as each process, has one of its own.
func lying(f func() lie) func(*config) { return func(c *config) { c.lie = f } }

// skips is a lie about one kind of operation on files with a suffix.
func skips(kind, suffix string) func(*config) {
	return lying(func() lie {
		return func(_ *disk, e *event) bool { return e.kind == kind && is(e.name, suffix) }
	})
}

func bugs() []bug {
	return []bug{
		{"ack before fsync", "entries are acknowledged when they are written", byCrash, skips("sync", ".seg")},
		{"sealed without fsync", "the segment that a roll ends is not synced", byCrash, lying(sealUnsynced)},
		{"header without fsync", "a new segment gets its name before its header is synced", byCrash, skips("sync", ".free")},
		{"name without fsync", "the directory is not synced when a segment gets its name", byCrash, lying(nameUnsynced)},
		{"removal without fsync", "the directory is not synced between the removals of a truncation", byCrash, lying(removalUnsynced)},
		{"tail not rewritten", "what recovery finds in the page cache is not written again", byCrash, lying(rewriteSkipped)},
		{"durable end not lowered", "a truncation does not lower the durable end first", byCrash, skips("sync", "durable-end")},
		{"start last", "the start record is written when the segments below it are gone", byCrash, lying(startLast)},
		{"nothing outlawed", "a reset does not outlaw the files of the emptied log", byCrash, lying(floorless)},
		{"checkpoint without fsync", "a checkpoint gets its name before it is synced", byCrash, skips("sync", ".ckp.tmp")},
		{"vote without fsync", "a vote is given before it is synced", byCrash, skips("sync", "raft-state")},
		{"offsets without fsync", "a checkpoint does not sync the offset index", byCrash, skips("sync", ".off")},
		{"cut on any damage", "recovery takes any damage at the end for a torn tail", byDamage + byCrash, func(c *config) { c.bugs.CutAnyDamage = true }},
		{"torn write with a hole", "recovery takes whole frames behind one that is torn", byCrash, func(c *config) { c.bugs.SkipDamage = true }},
		{"append after a cut", "a truncation goes on in the file it cut, over the bytes it leaves", byCrash + byCalls, func(c *config) { c.bugs.AppendAfterCut = true }},
		{"headers not seeded", "a frame's header verifies in any segment at its place", byCrash, func(c *config) { c.bugs.UnseededHeaders = true }},
		{"committed entries cut", "a truncation reaches entries that are committed", byCalls + byCrash, func(c *config) { c.bugs.CutCommitted = true }},
		{"payloads trusted", "the checksum of a payload is not looked at", byCrash + byCalls, func(c *config) { c.bugs.TrustPayloads = true }},
		{"offsets trusted", "the checksum of the offset index is not looked at", byDamage + byCrash, func(c *config) { c.bugs.TrustOffsets = true }},
	}
}

func find(name string) (bug, bool) {
	for _, b := range bugs() {
		if b.name == name {
			return b, true
		}
	}
	return bug{}, false
}

// sealUnsynced skips the sync behind the cut of a segment just written to.
func sealUnsynced() lie {
	const written, sealed = 1, 2
	return func(_ *disk, e *event) bool {
		if !is(e.name, ".seg") || e.file == nil {
			return false
		}
		switch e.kind {
		case "write":
			e.file.note = written
		case "truncate":
			if e.file.note == written {
				e.file.note = sealed
			}
		case "sync":
			skip := e.file.note == sealed
			e.file.note = 0
			return skip
		}
		return false
	}
}

func nameUnsynced() lie {
	return dirUnsynced(func(e *event) bool { return e.kind == "rename" && is(e.to, ".seg") })
}

func removalUnsynced() lie {
	return dirUnsynced(func(e *event) bool { return e.kind == "remove" && is(e.name, ".seg") })
}

// dirUnsynced skips the sync of a directory that follows a change of it.
func dirUnsynced(after func(*event) bool) lie {
	skip := false
	return func(_ *disk, e *event) bool {
		if e.kind == "syncdir" && skip {
			skip = false
			return true
		}
		skip = skip || after(e)
		return false
	}
}

// rewriteSkipped skips writes of what is there already.
func rewriteSkipped() lie {
	return func(_ *disk, e *event) bool {
		if e.kind != "write" || !is(e.name, ".seg") {
			return false
		}
		b := make([]byte, len(e.data))
		n, _ := e.file.File.ReadAt(b, e.off) // short: it differs
		return n == len(b) && bytes.Equal(b, e.data)
	}
}

// startLast holds the renames of the start record and its copy back until the
// sync of the directory behind a removal.
func startLast() lie {
	var held []event
	removed := false
	return func(d *disk, e *event) bool {
		switch {
		case e.kind == "rename" && (e.to == "start" || e.to == "start.copy" && len(held) > 0):
			held = append(held, *e)
			return true
		case e.kind == "remove" && is(e.name, ".seg"):
			removed = true
			return false
		case len(held) == 0 || e.kind != "syncdir":
			return false
		case !removed:
			return true
		}
		failed := false
		for _, h := range held {
			failed = d.rename(path.Join(h.dir, h.name), path.Join(h.dir, h.to)) != nil || failed
		}
		held, removed = nil, false
		return failed
	}
}

// floorless writes start records, and headers of the offset index, as if no
// log had ever been emptied.
func floorless() lie {
	patch := func(data []byte, floor, end int) []byte {
		b := bytes.Clone(data)
		clear(b[floor : floor+8])
		binary.LittleEndian.PutUint32(b[end:], crc32.Checksum(b[:end], crc32.MakeTable(crc32.Castagnoli)))
		return b
	}
	return func(_ *disk, e *event) bool {
		switch {
		case e.kind != "write" || e.off != 0:
		case bytes.HasPrefix(e.data, []byte("LOGDSTA1")):
			e.data = patch(e.data, 32, 48)
		case bytes.HasPrefix(e.data, []byte("LOGDOFF1")):
			e.data = patch(e.data, 16, 24)
		}
		return false
	}
}
