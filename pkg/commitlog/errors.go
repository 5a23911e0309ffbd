package commitlog

import (
	"errors"
	"fmt"
)

var (
	// ErrNotFound is returned by Entry, bare, for an index outside
	// [First, Last].
	ErrNotFound = errors.New("entry not found")
	// ErrClosed is returned by every call after Close.
	ErrClosed = errors.New("log closed")
)

// FatalError says that the disk failed under a write, and that the log accepts
// nothing any more: what is durable is only known again after a reopen. Every
// call after the first failure returns the same *FatalError.
type FatalError struct {
	Op   string // "write", "sync", "rename", …
	Path string // the file; empty when Fail was called
	Err  error
}

func (e *FatalError) Error() string {
	if e.Path == "" {
		return fmt.Sprintf("log failed: %s: %v", e.Op, e.Err)
	}
	return fmt.Sprintf("log failed: %s %s: %v", e.Op, e.Path, e.Err)
}

func (e *FatalError) Unwrap() error { return e.Err }

// CorruptError reports damage that no crash of a working disk explains. Nothing
// was cut or changed because of it.
type CorruptError struct {
	Path   string // the damaged file
	Place  int64  // bytes into it
	Index  uint64 // the entry that is, or should be, there; 0 when unknown
	Reason string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("%s: corrupt at place %d (entry %d): %s", e.Path, e.Place, e.Index, e.Reason)
}

// GapError reports entries that do not follow the last one.
type GapError struct{ Want, Got uint64 }

func (e *GapError) Error() string {
	return fmt.Sprintf("entry %d appended where %d must come next", e.Got, e.Want)
}

// TermError reports an entry whose term is lower than its predecessor's.
type TermError struct{ Index, Term, Previous uint64 }

func (e *TermError) Error() string {
	return fmt.Sprintf("entry %d has term %d, below its predecessor's %d", e.Index, e.Term, e.Previous)
}

// TooLargeError reports an entry above MaxEntryBytes.
type TooLargeError struct{ Index, Bytes uint64 }

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("entry %d has %d bytes, more than %d", e.Index, e.Bytes, uint64(MaxEntryBytes))
}

// NoSpaceError reports that there was no room for a file that comes before a
// change: a preallocated segment, a start record, the offset index. The call that
// returns it changed nothing that counts, and the log goes on: it is the one disk
// error that is not fatal.
type NoSpaceError struct{ Err error }

func (e *NoSpaceError) Error() string { return fmt.Sprintf("no space: %v", e.Err) }

func (e *NoSpaceError) Unwrap() error { return e.Err }

// CommittedError refuses to drop an entry that is known to be committed.
type CommittedError struct{ From, Committed uint64 }

func (e *CommittedError) Error() string {
	return fmt.Sprintf("truncation from entry %d, but %d is committed", e.From, e.Committed)
}

// OffsetGapError reports offsets published or rewound to that do not follow
// the offset index. From Rewind it means that the index lacks, through damage,
// what the checkpoint holds: an earlier checkpoint has to be replayed.
type OffsetGapError struct{ Want, Got uint64 }

func (e *OffsetGapError) Error() string {
	return fmt.Sprintf("offset %d where the offset index ends at %d", e.Got, e.Want)
}

// OutOfRangeError reports a read outside [Lowest, Next).
type OutOfRangeError struct{ Offset, Lowest, Next uint64 }

func (e *OutOfRangeError) Error() string {
	return fmt.Sprintf("offset %d outside [%d, %d)", e.Offset, e.Lowest, e.Next)
}
