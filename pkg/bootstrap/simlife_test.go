package bootstrap_test

import (
	"context"
	"encoding/json"
	"errors"
	"path"
	"time"

	"github.com/logd-io/logd/pkg/bootstrap"
	"github.com/logd-io/logd/pkg/vfs"
)

// life is one process of a node. Once dead is set nothing it does has effects.
type life struct {
	vfs.FS
	n      *node
	id     string
	left   int // steps on disk until it dies; < 0: it does not. Guarded by w.mu
	dead   bool
	b      *bootstrap.Bootstrap
	cancel context.CancelFunc
}

// step counts one change on disk and says whether the process still makes it.
func (l *life) step() error {
	w := l.n.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if l.left == 0 && !w.calm {
		l.die()
	}
	if l.dead {
		return errDead
	}
	l.left--
	return nil
}

// die leaves what a kill or a power loss leaves. w.mu is held.
func (l *life) die() {
	if l.dead {
		return
	}
	l.dead = true
	l.n.life = nil
	l.cancel()
	if l.n.w.rng.IntN(2) == 0 {
		l.n.disk = l.n.disk.Kill()
	} else {
		l.n.disk = l.n.disk.Crash(l.n.w.rng.Uint64())
	}
	if l.n.w.bug == losesPromise {
		_ = l.n.disk.Remove(path.Join(dir, "promise"))
	}
}

func (l *life) alive() bool {
	l.n.w.mu.Lock()
	defer l.n.w.mu.Unlock()
	return !l.dead
}

func (l *life) Create(name string) (vfs.File, error) {
	if err := l.step(); err != nil {
		return nil, err
	}
	f, err := l.FS.Create(name)
	return &file{f, l}, err
}

func (l *life) Rename(from, to string) error {
	if err := l.step(); err != nil {
		return err
	}
	return l.FS.Rename(from, to)
}

func (l *life) Remove(name string) error {
	if err := l.step(); err != nil {
		return err
	}
	return l.FS.Remove(name)
}

func (l *life) SyncDir(dir string) error {
	if err := l.step(); err != nil {
		return err
	}
	return l.FS.SyncDir(dir)
}

type file struct {
	vfs.File
	l *life
}

func (f *file) WriteAt(b []byte, off int64) (int, error) {
	if err := f.l.step(); err != nil {
		return 0, err
	}
	return f.File.WriteAt(b, off)
}

func (f *file) Sync() error {
	if err := f.l.step(); err != nil {
		return err
	}
	return f.File.Sync()
}

// The replica: a bound uuid and a configuration, each durable.
func (l *life) read(name string) string {
	data, err := vfs.ReadFile(l.FS, path.Join(dir, name))
	if err != nil {
		return ""
	}
	return string(data)
}

func (l *life) write(name, data string) error {
	return vfs.WriteFileAtomic(l, path.Join(dir, name), []byte(data))
}

func (l *life) HasState() bool           { return l.read("state") != "" }
func (l *life) Bound() string            { return l.read("bound") }
func (l *life) Changes() <-chan struct{} { return l.n.w.changes() }

// Bind is more forgiving than the real one, so that promises alone have to hold.
func (l *life) Bind(uuid string) error {
	if l.Bound() == uuid {
		return nil
	}
	return l.write("bound", uuid)
}

func (l *life) Bootstrap(_ context.Context, uuid string, servers []string) error {
	if !l.alive() {
		return errDead
	}
	if l.HasState() {
		return errors.New("bootstrap on a node with state")
	}
	if err := l.Bind(uuid); err != nil {
		return err
	}
	l.n.w.mu.Lock()
	l.n.w.begin(l.id, uuid, servers) // even if it now dies: the disk may have it
	l.n.w.mu.Unlock()
	state, err := json.Marshal(promise(uuid, servers...))
	if err != nil {
		return err
	}
	return l.write("state", string(state))
}

// The network. A request may be lost, doubled or late, and so may an answer.
func (l *life) Promise(ctx context.Context, id string, p bootstrap.Promise) error {
	w := l.n.w
	w.pause(ctx, 300*time.Millisecond)
	if l.alive() {
		w.again(id, p)
	}
	if w.bug == believes && w.chance(0.3) {
		return nil
	}
	if !l.alive() || w.chance(0.3) {
		return errLost
	}
	peer := w.reach(id)
	if peer == nil {
		return errLost
	}
	err := peer.b.Grant(ctx, p.Cluster, p.Initiator, p.Servers)
	w.pause(ctx, 300*time.Millisecond)
	if !peer.alive() || w.chance(0.3) {
		return errLost
	}
	if err != nil {
		return &bootstrap.RefusedError{Peer: id, Err: err}
	}
	return nil
}

// Gossip.
func (l *life) Peers() []bootstrap.Peer {
	w := l.n.w
	w.mu.Lock()
	defer w.mu.Unlock()
	var peers []bootstrap.Peer
	for _, n := range w.nodes {
		if n != l.n && n.life != nil && !w.hidden[[2]string{l.n.name, n.name}] {
			peers = append(peers, bootstrap.Peer{
				ID: n.life.id, Expect: w.expect, Alive: true, HasState: n.life.HasState(), Cluster: n.life.Bound(),
			})
		}
	}
	return peers
}
