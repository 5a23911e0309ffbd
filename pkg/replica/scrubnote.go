package replica

import (
	"errors"
	"io/fs"
	"path"
	"time"

	"github.com/logd-io/logd/pkg/vfs"
)

const (
	scrubFile = "scrubbed"

	// scrubNoted is the time between two notes within a pass.
	scrubNoted = time.Minute
)

// ScrubNote is how far the search for damage has come, in the file "scrubbed"
// (see seal). It is written now and then, so that a node that is started again
// goes on where it was, and a stopped one can tell. Nothing depends on it: one
// that is lost, old or damaged costs a pass that begins anew.
type ScrubNote struct {
	Passes   uint64    `json:"passes"`             // finished, since there is this directory
	Finished time.Time `json:"finished,omitzero"`  // when the newest one was
	Began    time.Time `json:"began,omitzero"`     // the pass under way; zero: none is
	Position uint64    `json:"position,omitempty"` // entry that it has reached
	Bytes    uint64    `json:"bytes,omitempty"`    // that it has read
	Damaged  uint64    `json:"damaged"`            // entries known to be damaged, and not repaired, as this was written
}

// readScrubNote reads the note in dir; nil when there is none.
func readScrubNote(fsys vfs.FS, dir string) (*ScrubNote, error) {
	b, err := vfs.ReadFile(fsys, path.Join(dir, scrubFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	n := &ScrubNote{}
	if err := unseal(scrubFile, b, n); err != nil {
		return nil, err
	}
	return n, nil
}

func (n *ScrubNote) write(fsys vfs.FS, dir string) error {
	b, err := seal(n)
	if err != nil {
		return err
	}
	return vfs.WriteFileAtomic(fsys, path.Join(dir, scrubFile), b)
}
