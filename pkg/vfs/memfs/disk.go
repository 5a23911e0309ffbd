package memfs

import (
	"path"
	"sort"
)

// disk is the state of the filesystem: what a running process sees, what was
// synced, and what changed since. It does no locking.
type disk struct {
	inodes map[uint64]*inode
	dirs   map[string]*directory
	seq    uint64    // counts the changes
	freed  []content // what was in space that is free again, newest last
}

// maxFreed bounds disk.freed.
const maxFreed = 8

type inode struct {
	live    content   // what a process reads
	durable content   // what was synced
	dirty   []version // sectors written since, in order
	sizes   []resize  // sizes set since, in order
	opens   int       // open files; 0 in a state that was replayed or crashed
}

// version is what a sector holds after an unsynced write.
type version struct {
	seq    uint64
	sector int
	page   *page
}

// resize is an unsynced size.
type resize struct {
	seq  uint64
	size int64
}

type directory struct {
	live    map[string]uint64 // name → inode
	durable map[string]uint64
	pending []rebinding // live is durable with these applied, in order
}

// rebinding is one atomic change of a directory: any of its parts may be empty.
type rebinding struct {
	seq    uint64
	unbind string
	bind   string
	inode  uint64
}

func (r *rebinding) apply(names map[string]uint64) {
	if r.unbind != "" {
		delete(names, r.unbind)
	}
	if r.bind != "" {
		names[r.bind] = r.inode
	}
}

// op is an operation that changes the disk; the journal is made of them.
type op struct {
	kind  opKind
	path  string // directory, of rebind, mkdir and syncdir
	inode uint64 // of all the others
	off   int64  // of write
	data  []byte // of write; of corrupt: the bits to flip
	size  int64  // of resize
	re    rebinding
}

type opKind uint8

const (
	opCreate opKind = iota // an inode, unnamed
	opWrite
	opResize
	opSync
	opMarkClean
	opCorrupt
	opMkdir
	opRebind
	opSyncDir
)

func newDisk() *disk {
	d := &disk{inodes: map[uint64]*inode{}, dirs: map[string]*directory{}}
	for _, root := range []string{"/", "."} {
		d.apply(op{kind: opMkdir, path: root})
	}
	return d
}

func (d *disk) apply(o op) {
	d.seq++
	switch o.kind {
	case opCreate:
		d.inodes[o.inode] = &inode{}
	case opWrite, opResize, opSync, opMarkClean, opCorrupt:
		// Replayed, it may be of a file without a name, which nobody can read.
		if n := d.inodes[o.inode]; n != nil {
			d.change(n, o)
		}
	case opMkdir:
		// A directory is durable at once, as vfs.FS promises of MkdirAll.
		if d.dirs[o.path] == nil {
			d.dirs[o.path] = &directory{live: map[string]uint64{}, durable: map[string]uint64{}}
		}
	case opRebind:
		dir := d.dirs[o.path]
		o.re.seq = d.seq
		d.free(dir.live, &o.re)
		o.re.apply(dir.live)
		dir.pending = append(dir.pending, o.re)
	case opSyncDir:
		dir := d.dirs[o.path]
		unbound := false
		for i := range dir.pending {
			r := &dir.pending[i]
			_, replaced := dir.durable[r.bind]
			unbound = unbound || replaced || r.unbind != ""
			r.apply(dir.durable)
		}
		dir.pending = nil
		if unbound {
			d.prune()
		}
	}
}

func (d *disk) change(n *inode, o op) {
	switch o.kind {
	case opWrite:
		first, pages := n.live.with(o.data, o.off)
		for i, p := range pages {
			n.live.set(first+i, p)
			n.dirty = append(n.dirty, version{d.seq, first + i, p})
		}
		if end := o.off + int64(len(o.data)); end > n.live.size {
			n.live.size = end
			n.sizes = append(n.sizes, resize{d.seq, end})
		}
	case opResize:
		d.resize(n, o.size)
	case opSync:
		n.sync()
	case opMarkClean:
		n.dirty = nil
	case opCorrupt:
		for _, c := range []*content{&n.live, &n.durable} {
			var b [1]byte
			if c.read(b[:], o.off) == 1 {
				b[0] ^= o.data[0]
				first, pages := c.with(b[:], o.off)
				c.set(first, pages[0])
			}
		}
	}
}

// resize sets a size. The rest of a block that is cut is zeroed, which is a
// write like any other: it may reach the disk before the size does, or never.
func (d *disk) resize(n *inode, size int64) {
	if size < n.live.size {
		if int64(len(n.live.pages))*SectorBytes >= size+SectorBytes {
			d.note(n.live.clone())
		}
		for sector := int(size / SectorBytes); sector < min(blockEnd(size), len(n.live.pages)); sector++ {
			if p := n.live.page(sector); p != nil {
				n.dirty = append(n.dirty, version{d.seq, sector, cutPage(p, max(0, size-int64(sector)*SectorBytes))})
			}
		}
	}
	n.live.truncate(size)
	n.sizes = append(n.sizes, resize{d.seq, size})
}

// blockEnd is the first sector behind the block that place is in, or ends.
func blockEnd(place int64) int {
	const blockBytes = blockSectors * SectorBytes
	return int((place+blockBytes-1)/blockBytes) * blockSectors
}

// sync makes n durable. It applies what changed instead of copying what is
// there, since files may be large.
func (n *inode) sync() {
	sizes := n.sizes
	shrink := func(before uint64) {
		for len(sizes) > 0 && sizes[0].seq <= before {
			n.durable.truncate(sizes[0].size)
			sizes = sizes[1:]
		}
	}
	for _, v := range n.dirty {
		shrink(v.seq)
		if int64(v.sector)*SectorBytes < n.durable.size {
			n.durable.set(v.sector, v.page)
		}
	}
	shrink(^uint64(0))
	n.dirty, n.sizes = nil, nil
}

// free notes the content of the file that r takes the last name of.
func (d *disk) free(names map[string]uint64, r *rebinding) {
	id, replaced := names[r.bind]
	if r.bind == "" {
		id, replaced = names[r.unbind]
	}
	if n := d.inodes[id]; replaced && n != nil {
		d.note(n.live.clone())
	}
}

// note adds to the freed contents.
func (d *disk) note(c content) {
	if len(c.pages) == 0 {
		return
	}
	if len(d.freed) == maxFreed {
		d.freed = append([]content(nil), d.freed[1:]...)
	}
	d.freed = append(d.freed, c)
}

// prune forgets the inodes that nothing can lead to.
func (d *disk) prune() {
	named := map[uint64]bool{}
	for _, dir := range d.dirs {
		for _, id := range dir.live {
			named[id] = true
		}
		for _, id := range dir.durable {
			named[id] = true
		}
		for i := range dir.pending {
			named[dir.pending[i].inode] = true
		}
	}
	for id, n := range d.inodes {
		if n.opens == 0 && !named[id] {
			delete(d.inodes, id)
		}
	}
}

func (d *disk) clone() *disk {
	c := &disk{
		inodes: make(map[uint64]*inode, len(d.inodes)), dirs: make(map[string]*directory, len(d.dirs)),
		seq: d.seq, freed: append([]content(nil), d.freed...),
	}
	for id, n := range d.inodes {
		c.inodes[id] = &inode{
			live: n.live.clone(), durable: n.durable.clone(),
			dirty: append([]version(nil), n.dirty...), sizes: append([]resize(nil), n.sizes...),
		}
	}
	for name, dir := range d.dirs {
		c.dirs[name] = &directory{live: copyNames(dir.live), durable: copyNames(dir.durable), pending: append([]rebinding(nil), dir.pending...)}
	}
	return c
}

// lookup returns the inode that a name is bound to.
func (d *disk) lookup(name string) (uint64, bool) {
	dir := d.dirs[path.Dir(name)]
	if dir == nil {
		return 0, false
	}
	id, ok := dir.live[path.Base(name)]
	return id, ok
}

func copyNames(m map[string]uint64) map[string]uint64 {
	c := make(map[string]uint64, len(m))
	for k, v := range m {
		c[k] = v
	}
	return c
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
