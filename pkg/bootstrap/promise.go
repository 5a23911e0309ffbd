package bootstrap

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/google/uuid"

	"github.com/logd-io/logd/pkg/vfs"
)

// Promise binds a node to one cluster and its first configuration.
type Promise struct {
	Cluster   string   `json:"cluster"`   // canonical uuid
	Initiator string   `json:"initiator"` // the one that may bootstrap: Servers[0]
	Servers   []string `json:"servers"`   // node ids, ascending
}

// Equal tells whether two promises are the same.
func (p Promise) Equal(q Promise) bool {
	return p.Cluster == q.Cluster && p.Initiator == q.Initiator && slices.Equal(p.Servers, q.Servers)
}

func (p Promise) String() string {
	return fmt.Sprintf("cluster %s of %s, initiated by %s", p.Cluster, strings.Join(p.Servers, ", "), p.Initiator)
}

// check reports what no promise may be.
func (p Promise) check() error {
	if id, err := uuid.Parse(p.Cluster); err != nil || id.String() != p.Cluster {
		return &InvalidError{fmt.Sprintf("cluster %q is not a canonical uuid", p.Cluster)}
	}
	if len(p.Servers) == 0 {
		return &InvalidError{"no servers"}
	}
	for i, id := range p.Servers {
		if id == "" || i > 0 && p.Servers[i-1] >= id {
			return &InvalidError{fmt.Sprintf("servers %q are not distinct ids in ascending order", p.Servers)}
		}
	}
	if p.Initiator != p.Servers[0] {
		return &InvalidError{fmt.Sprintf("initiator %q is not the smallest of %q", p.Initiator, p.Servers)}
	}
	return nil
}

// fileName is the promise's file in the data directory: a line of JSON, then a
// line with the CRC-32C of that line in hex.
const fileName = "promise"

// maxFile bounds what is read of it.
const maxFile = 1 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Store keeps a node's one promise on disk. Safe for concurrent use.
type Store struct {
	fs   vfs.FS
	dir  string
	name string

	mu sync.Mutex
	// The promise made, or tried and perhaps not written: after a failed write
	// nobody knows which, so no other may be made. Guarded by mu; what it points
	// to never changes.
	promise *Promise
	durable bool // promise is known to be on disk; guarded by mu
}

// Open reads the promise in dir, if there is one.
func Open(fsys vfs.FS, dir string) (*Store, error) {
	s := &Store{fs: fsys, dir: dir, name: path.Join(dir, fileName)}
	info, err := fsys.Stat(s.name)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open promise %s: %w", s.name, err)
	}
	if info.Size > maxFile {
		return nil, &CorruptError{Path: s.name, Reason: fmt.Sprintf("%d bytes", info.Size)}
	}
	data, err := vfs.ReadFile(fsys, s.name)
	if err != nil {
		return nil, fmt.Errorf("open promise %s: %w", s.name, err)
	}
	p, reason := decode(data)
	if reason != "" {
		return nil, &CorruptError{Path: s.name, Reason: reason}
	}
	// Who wrote it may have been killed before its name was durable, and it will
	// now be repeated to others.
	if err := fsys.SyncDir(dir); err != nil {
		return nil, fmt.Errorf("open promise %s: %w", s.name, err)
	}
	s.promise, s.durable = &p, true
	return s, nil
}

// Promised returns the promise this node has made, durably.
func (s *Store) Promised() (Promise, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.promise == nil || !s.durable {
		return Promise{}, false
	}
	return *s.promise, true
}

// Make makes the promise, and returns when it is on disk. The same one again is
// granted again; any other is refused with a *PromisedError, for ever.
func (s *Store) Make(p Promise) error {
	if err := p.check(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.promise != nil {
		if !s.promise.Equal(p) {
			return &PromisedError{To: *s.promise}
		}
		if s.durable {
			return nil
		}
	}
	p.Servers = slices.Clone(p.Servers)
	data, err := encode(p)
	if err != nil {
		return err
	}
	s.promise, s.durable = &p, false
	if err := vfs.WriteFileAtomic(s.fs, s.name, data); err != nil {
		return fmt.Errorf("write promise: %w", err)
	}
	s.durable = true
	return nil
}

// Forget takes the promise back, durably. It is for an operator, on a stopped
// node without Raft state, whose cluster never came to be: if the initiator has
// bootstrapped, or still may, forgetting makes a second cluster possible.
// Without a promise it returns ErrNoPromise.
func (s *Store) Forget() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.fs.Remove(s.name)
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNoPromise
	}
	if err == nil {
		err = s.fs.SyncDir(s.dir)
	}
	if err != nil {
		return fmt.Errorf("forget promise: %w", err)
	}
	s.promise, s.durable = nil, false
	return nil
}

func encode(p Promise) ([]byte, error) {
	line, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encode promise: %w", err)
	}
	return fmt.Appendf(nil, "%s\n%08x\n", line, crc32.Checksum(line, castagnoli)), nil
}

// decode returns the promise, or why there is none.
func decode(data []byte) (p Promise, reason string) {
	line, rest, ok := strings.Cut(string(data), "\n")
	if !ok || rest != fmt.Sprintf("%08x\n", crc32.Checksum([]byte(line), castagnoli)) {
		return Promise{}, "checksum does not match"
	}
	if err := json.Unmarshal([]byte(line), &p); err != nil {
		return Promise{}, err.Error()
	}
	if err := p.check(); err != nil {
		return Promise{}, err.Error()
	}
	return p, ""
}
