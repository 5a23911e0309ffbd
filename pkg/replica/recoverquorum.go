package replica

import (
	"fmt"
	"path"
	"time"

	"github.com/hashicorp/raft"

	"github.com/logd-io/logd/pkg/raftstore"
	"github.com/logd-io/logd/pkg/vfs"
)

// PlanRecovery says what Recover would do to a node whose cluster has lost its
// majority for good: make it, under the uuid cluster, the only voter of another
// cluster that begins with everything this node has. A recovery that was begun
// is gone on with as it was planned. It changes nothing.
//
// The new uuid is what keeps the old cluster out, should its nodes come back:
// they do not talk to this one, nor does a proxy that follows the one go to the
// other.
func (o *Offline) PlanRecovery(cluster string) (*Task, error) {
	if o.Task != nil && o.Task.Kind == TaskRecover {
		return o.Task, nil
	}
	switch {
	case o.Task != nil:
		return nil, &UnfinishedError{Dir: o.dir, Kind: o.Task.Kind}
	case o.Cluster == "":
		return nil, fmt.Errorf("%s: this node was never in a cluster, or its %s is damaged", o.dir, clusterIDFile)
	case cluster == o.Cluster || checkUUID(cluster) != nil:
		return nil, &InvalidError{Field: "cluster", Reason: fmt.Sprintf("%q is not the uuid of another cluster", cluster)}
	}
	if err := checkMark(o.below, o.dir); err != nil {
		return nil, err
	}
	next, err := o.NextStart()
	switch {
	case err != nil:
		return nil, err
	case next.Refused != nil:
		return nil, fmt.Errorf("this node would not start, so it cannot be what the cluster goes on with: %w", next.Refused)
	case next.Last == 0:
		return nil, fmt.Errorf("%s: the log is empty", o.dir)
	}
	if o.NodeID == "" {
		return nil, fmt.Errorf("%s: no configuration in the log names this node", o.dir)
	}
	return &Task{
		Kind: TaskRecover, Cluster: cluster, Former: o.Cluster, NodeID: o.NodeID,
		Index: next.Last + 1, Term: max(o.Store.Term, o.Store.VoteTerm, next.LastTerm) + 1,
	}, nil
}

// Recover carries out what PlanRecovery planned. It may be interrupted anywhere
// and done again; until it is through, no node starts in the directory.
//
// raft.RecoverCluster is not used: it takes a snapshot and deletes the log.
func (o *Offline) Recover(t *Task) error {
	if err := t.begin(o.below, o.dir); err != nil {
		return err
	}
	if err := o.open(o.below, t.extend); err != nil {
		return err
	}
	if err := vfs.WriteFileAtomic(o.below, path.Join(o.dir, clusterIDFile), []byte(t.Cluster+"\n")); err != nil {
		return fmt.Errorf("write %s: %w", clusterIDFile, err)
	}
	return t.end(o.below, o.dir)
}

// entries are what a recovery appends: who votes, and whose log this is.
func (t *Task) entries() []*raft.Log {
	config := raft.Configuration{Servers: []raft.Server{{
		Suffrage: raft.Voter, ID: raft.ServerID(t.NodeID), Address: raft.ServerAddress(t.NodeID),
	}}}
	now := time.Now()
	return []*raft.Log{
		{Index: t.Index, Term: t.Term, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(config), AppendedAt: now},
		{Index: t.Index + 1, Term: t.Term, Type: raft.LogCommand, Data: encodeSucceed(t.Former, t.Cluster), AppendedAt: now},
	}
}

// extend appends what is not there yet.
func (t *Task) extend(s *raftstore.Store) error {
	last := s.Log().Last()
	if last+1 < t.Index || last > t.Index+1 {
		return fmt.Errorf("the log ends at entry %d, but the recovery was to go on from %d: it is not as it was left", last, t.Index)
	}
	for i := t.Index; i <= last; i++ {
		if e, err := s.Log().Entry(i); err != nil || e.Term != t.Term {
			return fmt.Errorf("entry %d is not the recovery's: term %d, not %d (%w)", i, e.Term, t.Term, err)
		}
	}
	// The term first: no entry may be of a term that this node could yet vote in.
	if err := s.SetUint64([]byte("CurrentTerm"), t.Term); err != nil {
		return err
	}
	missing := t.entries()[last+1-t.Index:]
	if len(missing) == 0 {
		return nil
	}
	return s.StoreLogs(missing)
}
