package replica

import (
	"errors"
	"fmt"
	"io/fs"
	"path"

	"github.com/logd-io/logd/pkg/raftstore"
	"github.com/logd-io/logd/pkg/vfs/overlay"
)

// Unbind makes a node that was bound to a cluster which never came to be another
// one, bound to none: its id is removed first, so that nobody ever meets that id
// with anything else than what was promised under it. It may be interrupted, and
// done again. ErrHasState: the node was in a cluster. It may not be called for a
// node that is bound to another cluster than that.
func (o *Offline) Unbind(cluster string) error {
	if o.Cluster != "" && o.Cluster != cluster {
		return &ClusterMismatchError{Bound: o.Cluster, Got: cluster}
	}
	if o.Task != nil {
		return &UnfinishedError{Dir: o.dir, Kind: o.Task.Kind}
	}
	state := false
	err := o.open(overlay.New(o.below), func(s *raftstore.Store) error {
		state = s.HasState()
		return nil
	})
	switch {
	case err != nil:
		return fmt.Errorf("whether this node has state is not known: %w", err)
	case len(o.findings) > 0:
		return fmt.Errorf("whether this node has state is not known: %s: %s", o.findings[0].Path, o.findings[0].What)
	case state:
		return ErrHasState
	}
	for _, f := range []struct{ dir, name string }{{o.home, nodeIDFile}, {o.dir, clusterIDFile}} {
		if err := o.below.Remove(path.Join(f.dir, f.name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove %s: %w", path.Join(f.dir, f.name), err)
		}
		if err := o.below.SyncDir(f.dir); err != nil {
			return fmt.Errorf("remove %s: %w", path.Join(f.dir, f.name), err)
		}
	}
	return nil
}

// Unbind does the same for a node that is open and not run yet, but for the id. It is
// how an Offline's Unbind that a crash ended after the id was removed is finished.
func (r *Replica) Unbind(cluster string) error {
	r.life.Lock()
	defer r.life.Unlock()
	switch {
	case r.closed:
		return ErrClosed
	case r.running || r.HasState():
		return ErrHasState
	case r.cluster == "":
		return nil
	case r.cluster != cluster:
		return &ClusterMismatchError{Bound: r.cluster, Got: cluster}
	}
	err := r.guard(func() error {
		err := r.cfg.FS.Remove(path.Join(r.cfg.Dir, clusterIDFile))
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			err = r.cfg.FS.SyncDir(r.cfg.Dir)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("remove %s: %w", clusterIDFile, err)
	}
	r.setCluster("")
	r.publish(r.idleView())
	return nil
}
