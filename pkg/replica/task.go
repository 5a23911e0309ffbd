package replica

import (
	"errors"
	"fmt"
	"io/fs"
	"path"

	"github.com/logd-io/logd/pkg/vfs"
)

const (
	lockFile = "raft.lock"
	taskFile = "unfinished"
)

// The tasks that make a directory a node's, and leave it useless until they are
// through.
const (
	TaskRecover = "recover"
	TaskImport  = "import"
)

// Task is what a command is doing to a directory. It is there, in the file
// "unfinished" (see seal), from before the first change until after the last.
type Task struct {
	Kind    string `json:"kind"`
	Cluster string `json:"cluster"`          // uuid the node will be of
	Former  string `json:"former,omitempty"` // uuid it was of; recover
	NodeID  string `json:"node_id"`
	Index   uint64 `json:"index,omitempty"` // of the first entry that is added; recover
	Term    uint64 `json:"term,omitempty"`  // of those entries; recover
}

// UnfinishedError refuses a directory in which a task was begun.
type UnfinishedError struct {
	Dir  string
	Kind string
}

func (e *UnfinishedError) Error() string {
	if e.Kind == TaskImport {
		return fmt.Sprintf("%s: an import into it was not finished; remove the directory and import again", e.Dir)
	}
	return fmt.Sprintf("%s: a recovery of it was not finished; run logd recover again", e.Dir)
}

// readTask reads the task in dir; nil when there is none.
func readTask(fsys vfs.FS, dir string) (*Task, error) {
	b, err := vfs.ReadFile(fsys, path.Join(dir, taskFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	t := &Task{}
	if err := unseal(taskFile, b, t); err != nil {
		return nil, err
	}
	return t, nil
}

// begin makes a task durable.
func (t *Task) begin(fsys vfs.FS, dir string) error {
	b, err := seal(t)
	if err == nil {
		err = vfs.WriteFileAtomic(fsys, path.Join(dir, taskFile), b)
	}
	if err != nil {
		return fmt.Errorf("note what is begun: %w", err)
	}
	return nil
}

// end takes it away, durably: the directory is a node's.
func (t *Task) end(fsys vfs.FS, dir string) error {
	err := fsys.Remove(path.Join(dir, taskFile))
	if err == nil {
		err = fsys.SyncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("note what is finished: %w", err)
	}
	return nil
}

// refuseUnfinished is for who is about to start a node in dir.
func refuseUnfinished(fsys vfs.FS, dir string) error {
	switch t, err := readTask(fsys, dir); {
	case err != nil:
		return fmt.Errorf("open %s: %w", dir, err)
	case t != nil:
		return &UnfinishedError{Dir: dir, Kind: t.Kind}
	}
	return nil
}
