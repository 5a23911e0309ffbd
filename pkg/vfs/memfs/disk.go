package memfs

import (
	"math/rand/v2"
	"path"
	"sort"
)

// disk is the state of the filesystem: what a running process sees, and what a
// crash would leave. It does no locking.
type disk struct {
	inodes map[uint64]*inode
	dirs   map[string]*directory
}

type inode struct {
	live    *content // what a process reads
	durable *content // what was synced
	pending []change // live is durable with these applied, in order
	opens   int      // open files; 0 in a state that was replayed or crashed
}

type directory struct {
	live    map[string]uint64 // name → inode
	durable map[string]uint64
	pending []rebinding // live is durable with these applied, in order
}

// rebinding is one atomic change of a directory: any of its parts may be empty.
type rebinding struct {
	unbind string
	bind   string
	inode  uint64
}

func (r rebinding) apply(names map[string]uint64) {
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
	inode uint64 // of create, change and sync
	ch    change
	re    rebinding
}

type opKind uint8

const (
	opCreate opKind = iota // an inode, unnamed
	opChange
	opSync
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
	switch o.kind {
	case opCreate:
		d.inodes[o.inode] = &inode{live: newContent(), durable: newContent()}
	case opChange:
		n := d.inodes[o.inode]
		if n == nil {
			return // replayed: a file without a name, which nobody can read
		}
		n.live.apply(o.ch)
		n.pending = append(n.pending, o.ch)
	case opSync:
		n := d.inodes[o.inode]
		if n == nil {
			return
		}
		for _, ch := range n.pending {
			n.durable.apply(ch)
		}
		n.pending = nil
	case opMkdir:
		// A directory is durable at once, as vfs.FS promises of MkdirAll.
		if d.dirs[o.path] == nil {
			d.dirs[o.path] = &directory{live: map[string]uint64{}, durable: map[string]uint64{}}
		}
	case opRebind:
		dir := d.dirs[o.path]
		o.re.apply(dir.live)
		dir.pending = append(dir.pending, o.re)
	case opSyncDir:
		dir := d.dirs[o.path]
		unbound := false
		for _, r := range dir.pending {
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
		for _, r := range dir.pending {
			named[r.inode] = true
		}
	}
	for id, n := range d.inodes {
		if n.opens == 0 && !named[id] {
			delete(d.inodes, id)
		}
	}
}

func (d *disk) clone() *disk {
	c := &disk{inodes: make(map[uint64]*inode, len(d.inodes)), dirs: make(map[string]*directory, len(d.dirs))}
	for id, n := range d.inodes {
		c.inodes[id] = &inode{live: n.live.clone(), durable: n.durable.clone(), pending: append([]change(nil), n.pending...)}
	}
	for name, dir := range d.dirs {
		c.dirs[name] = &directory{live: copyNames(dir.live), durable: copyNames(dir.durable), pending: append([]rebinding(nil), dir.pending...)}
	}
	return c
}

// crash returns a state that a power loss may leave. Each unsynced change of a
// file survives wholly, in part or not at all, whatever became of the others;
// of a directory's, either the first few survive (a journalling filesystem) or
// any of them.
func (d *disk) crash(sector int64, rng *rand.Rand) *disk {
	c := &disk{inodes: map[uint64]*inode{}, dirs: map[string]*directory{}}
	for _, name := range sortedKeys(d.dirs) {
		dir := d.dirs[name]
		names := copyNames(dir.durable)
		prefix, first := rng.IntN(2) == 0, rng.IntN(len(dir.pending)+1)
		for i, r := range dir.pending {
			if (prefix && i < first) || (!prefix && rng.IntN(2) == 0) {
				r.apply(names)
			}
		}
		c.dirs[name] = &directory{live: names, durable: copyNames(names)}
		for _, base := range sortedKeys(names) {
			id := names[base]
			if c.inodes[id] != nil {
				continue // two names until the rename is whole
			}
			n := d.inodes[id]
			left := n.durable.clone()
			for _, ch := range n.pending {
				left.tear(ch, sector, rng)
			}
			c.inodes[id] = &inode{live: left, durable: left.clone()}
		}
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
