package replica

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"github.com/logd-io/logd/pkg/vfs"
)

// divergedFile marks a data directory whose state cannot be trusted any more.
const divergedFile = "diverged"

// DivergenceError says that this node's state machine is not what the others'
// is. Run ends with it, within a FatalError, and Open refuses the data directory
// with it from then on.
type DivergenceError struct {
	Node     string `json:"node"`
	Index    uint64 `json:"index"`    // announced entry at which states were compared
	Own      uint64 `json:"own"`      // fingerprint of this node's state there
	Majority uint64 `json:"majority"` // and of the majority's; 0 when there is none
	Votes    int    `json:"votes"`    // voters with it; 0: no two halves agree, and every node stops
	Voters   int    `json:"voters"`
	Path     string `json:"-"` // of the mark, when Open found it
}

func (e *DivergenceError) Error() string {
	what := fmt.Sprintf("the state of node %s at entry %d (%016x) differs from that of %d of %d voters (%016x)",
		e.Node, e.Index, e.Own, e.Votes, e.Voters, e.Majority)
	if e.Votes == 0 {
		what = fmt.Sprintf("no majority of %d voters agrees about the state at entry %d (node %s: %016x), so every node stops",
			e.Voters, e.Index, e.Node, e.Own)
	}
	switch {
	case e.Path == "":
		return what
	case e.Votes == 0:
		return fmt.Sprintf("%s says: %s; compare the nodes (logd inspect), delete that file on those that are right, "+
			"and let the others start with an empty data_dir as new nodes", e.Path, what)
	}
	return fmt.Sprintf("%s says: %s; this data is not used again: remove node %s from the cluster "+
		"(logd operator raft remove-peer) and start it with an empty data_dir, as a new node", e.Path, what, e.Node)
}

// mark writes the mark. Nothing but Open reads it.
func (e *DivergenceError) mark(fsys vfs.FS, dir string) error {
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if err := vfs.WriteFileAtomic(fsys, path.Join(dir, divergedFile), append(b, '\n')); err != nil {
		return fmt.Errorf("write %s: %w", divergedFile, err)
	}
	return nil
}

// checkMark refuses a directory that a diverged node left. A mark that cannot be
// read is one all the same.
func checkMark(fsys vfs.FS, dir string) error {
	name := path.Join(dir, divergedFile)
	b, err := vfs.ReadFile(fsys, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("read %s: %w", name, err)
	}
	e := &DivergenceError{}
	if err := json.Unmarshal(b, e); err != nil {
		return fmt.Errorf("%s marks this data as diverged, and is damaged itself: %w", name, err)
	}
	e.Path = name
	return e
}
