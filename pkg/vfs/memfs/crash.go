package memfs

import (
	"hash/maphash"
	"slices"
	"sort"
)

// What a power loss may leave of what was not synced:
//
//   - Names and sizes, one of two ways. A journalling filesystem (ext4, xfs)
//     keeps the first so many changes, of all files and directories together.
//     A weaker one (POSIX promises no more) keeps any of a directory's changes,
//     each whole, and of each file any one of the sizes that it had.
//   - Bytes, whatever became of the sizes and whatever the order. A disk writes
//     512 bytes at once, or 4 KiB; each such piece is as it was synced, or as it
//     was after any one write since. A cut zeroes the rest of its block, and
//     those zeros may arrive though the new size does not.
//   - Space that a file had not filled when it was last synced, beyond its
//     length then or where an unsynced write went, may hold what was there
//     before: sectors of files that were deleted, cut or never named, at the
//     same place or at another.
//
// What was allocated and synced, and never written, reads as zeros, as vfs.File
// promises.

// crash returns a state that a power loss may leave.
func (d *disk) crash(ch Chooser) *disk {
	c := &disk{inodes: make(map[uint64]*inode, len(d.inodes)), dirs: make(map[string]*directory, len(d.dirs)), seq: d.seq, freed: slices.Clone(d.freed)}
	m := d.fate(ch)
	for _, name := range sortedKeys(d.dirs) {
		dir := d.dirs[name]
		names := copyNames(dir.durable)
		for i := range dir.pending {
			if m.survives(dir.pending[i].seq) {
				dir.pending[i].apply(names)
			}
		}
		c.dirs[name] = &directory{live: names, durable: copyNames(names)}
		for _, base := range sortedKeys(names) {
			id := names[base]
			if c.inodes[id] != nil {
				continue // two names until the rename is whole
			}
			left := d.inodes[id].crash(m, d.freed)
			c.inodes[id] = &inode{live: left, durable: left.clone()}
		}
	}
	for _, id := range sortedIDs(d.inodes) {
		if c.inodes[id] == nil {
			c.note(d.inodes[id].live.clone())
		}
	}
	return c
}

// fate is what a crash does, the same to all files.
type fate struct {
	Chooser
	journal uint64 // changes of names and sizes up to here survive; 0: any may
	block   int    // sectors that a disk writes, and a filesystem allocates, at once
	data    dataFate
	until   uint64 // for inOrder
}

type dataFate int

const (
	anyData dataFate = iota // each piece has a fate of its own
	inOrder                 // what was written up to some moment is there
)

func (d *disk) fate(ch Chooser) *fate {
	m := &fate{Chooser: ch, block: 1}
	var meta, data []uint64
	for _, dir := range d.dirs {
		for i := range dir.pending {
			meta = append(meta, dir.pending[i].seq)
		}
	}
	for _, n := range d.inodes {
		for _, s := range n.sizes {
			meta = append(meta, s.seq)
		}
		for _, v := range n.dirty {
			data = append(data, v.seq)
		}
	}
	if meta = distinct(meta); len(meta) > 0 && ch.Choose(2) == 0 {
		if at := ch.Choose(len(meta) + 1); at > 0 {
			m.journal = meta[at-1]
		} else {
			m.journal = 1 // older than any that is pending
		}
	}
	if data = distinct(data); len(data) == 0 {
		return m
	}
	if ch.Choose(2) == 0 {
		m.block = blockSectors
	}
	if ch.Choose(2) == 0 {
		m.data = inOrder
		if at := ch.Choose(len(data) + 1); at > 0 {
			m.until = data[at-1]
		}
	}
	return m
}

// survives decides about a change of a name.
func (m *fate) survives(seq uint64) bool {
	if m.journal != 0 {
		return seq <= m.journal
	}
	return m.Choose(2) == 1
}

// sizeOf decides how many of the sizes since the last sync survive: the last
// of them is the size.
func (m *fate) sizeOf(sizes []resize) int {
	if m.journal == 0 {
		return m.Choose(len(sizes) + 1)
	}
	return sort.Search(len(sizes), func(i int) bool { return sizes[i].seq > m.journal })
}

// crash returns what is left of a file's bytes.
func (n *inode) crash(m *fate, freed []content) content {
	kept := m.sizeOf(n.sizes)
	if len(n.dirty) == 0 && len(n.sizes) == 0 {
		return n.durable.clone()
	}
	left := content{size: n.durable.size}
	if kept > 0 {
		left.size = n.sizes[kept-1].size
	}
	stale := m.stale(freed)
	sectors := int((left.size + SectorBytes - 1) / SectorBytes)
	top := min(sectors, max(len(n.durable.pages), n.highest()+blockSectors))
	if stale != nil {
		top = sectors // also where nothing was written
	}
	for first := 0; first < top; first += m.block {
		n.crashPiece(m, &left, first, min(first+m.block, top), kept, stale)
	}
	if last := int(left.size / SectorBytes); last < len(left.pages) {
		left.pages[last] = cutPage(left.pages[last], left.size%SectorBytes)
	}
	return left
}

func (n *inode) highest() int {
	top := 0
	for _, v := range n.dirty {
		top = max(top, v.sector)
	}
	return top
}

// crashPiece decides about the sectors [first, last), which the disk writes at
// once.
func (n *inode) crashPiece(m *fate, left *content, first, last, kept int, stale func(int) *page) {
	after, before, low := n.window(first, kept)
	var seqs []uint64
	for _, v := range n.dirty {
		if v.sector >= first && v.sector < last && v.seq >= after && v.seq < before {
			seqs = append(seqs, v.seq)
		}
	}
	seqs = distinct(seqs)
	until := uint64(0)
	switch {
	case m.data == inOrder:
		until = m.until
	case len(seqs) > 0:
		if at := m.Choose(len(seqs) + 1); at > 0 {
			until = seqs[at-1]
		}
	}
	// Nothing durable is in fresh space, so the filesystem may have given it to
	// the file just now.
	fresh := stale != nil && (int64(first)*SectorBytes >= low || n.filling(first, last, after, before))
	old := fresh && m.Choose(2) == 1
	for sector := first; sector < last; sector++ {
		var p *page
		if after == 0 {
			p = n.durable.page(sector)
		}
		empty := p == nil
		for _, v := range n.dirty {
			if v.sector == sector && v.seq >= after && v.seq < before && v.seq <= until {
				p, empty = v.page, false
			}
		}
		if empty && old {
			p = stale(sector)
		}
		left.set(sector, p)
	}
}

// window returns which unsynced writes of a sector can be part of a file with
// the first kept of its sizes: from after on (0: the synced bytes count too)
// and before before. low is the length up to which the file was never cut.
func (n *inode) window(sector, kept int) (after, before uint64, low int64) {
	before, low = ^uint64(0), n.durable.size
	for i, s := range n.sizes {
		cuts := blockEnd(s.size) <= sector
		switch {
		case i < kept:
			low = min(low, s.size)
			if cuts && s.size < n.sizeBefore(i) {
				after = s.seq
			}
		case cuts && s.size < n.sizeBefore(i) && before == ^uint64(0):
			before = s.seq
		}
	}
	return after, before, low
}

func (n *inode) sizeBefore(i int) int64 {
	if i == 0 {
		return n.durable.size
	}
	return n.sizes[i-1].size
}

// filling says whether an unsynced write went to one of the sectors [first,
// last), a block, and nothing durable is there.
func (n *inode) filling(first, last int, after, before uint64) bool {
	for sector := first; sector < last; sector++ {
		if after == 0 && n.durable.page(sector) != nil {
			return false
		}
	}
	for _, v := range n.dirty {
		if v.sector >= first && v.sector < last && v.seq >= after && v.seq < before {
			return true
		}
	}
	return false
}

// stale decides what is in space that a file was given and has not filled: nil
// for zeros.
func (m *fate) stale(freed []content) func(sector int) *page {
	if len(freed) == 0 || m.Choose(2) == 0 {
		return nil
	}
	from := freed[m.Choose(len(freed))]
	shift := 0
	if m.Choose(2) == 1 {
		shift = 1 + m.Choose(2*blockSectors)
	}
	return func(sector int) *page { return from.page(sector + shift) }
}

func distinct(seqs []uint64) []uint64 {
	slices.Sort(seqs)
	return slices.Compact(seqs)
}

func sortedIDs(m map[uint64]*inode) []uint64 {
	ids := make([]uint64, 0, len(m))
	for id := range m {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// sum hashes every name and every byte, live and, where that differs, durable.
func (d *disk) sum(seed maphash.Seed) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	number := func(v uint64) {
		var b [8]byte
		for i := range b {
			b[i] = byte(v >> (8 * i))
		}
		h.Write(b[:])
	}
	bytes := func(c *content) {
		number(uint64(c.size))
		for i, p := range c.pages {
			if p != nil && *p != zeroPage {
				number(uint64(i))
				h.Write(p[:])
			}
		}
	}
	for _, name := range sortedKeys(d.dirs) {
		dir := d.dirs[name]
		h.WriteString(name)
		number(uint64(len(dir.pending)))
		for _, base := range sortedKeys(dir.live) {
			h.WriteString(base)
			n := d.inodes[dir.live[base]]
			bytes(&n.live)
			if len(n.dirty)+len(n.sizes) > 0 {
				bytes(&n.durable)
			}
			number(uint64(len(n.dirty)))
		}
	}
	return h.Sum64()
}
