package raftstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"runtime"
	"sort"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"

	"github.com/logd-io/logd/pkg/vfs"
)

// The file of Raft's three small keys: two slots, written in turn, so that the
// one not being written is always whole.
//
//	place 0     slot 0, 512 bytes
//	place 4096  slot 1, 512 bytes
//	slot   magic u32 | crc32c u32 of what follows | sequence u64 | pairs u8
//	       | pairs × {key length u8, key, value length u8, value} | zeros
//
// A slot is one sector, which a disk writes whole or not at all. A slot that
// does not verify is therefore damage, never a torn write, and is refused: to
// fall back to the older slot would forget a vote.
const (
	slotBytes  = 512
	slotPlace  = 4096
	stableSize = 2 * slotPlace
	slotMagic  = 0x31545352 // "RST1"
)

// The keys hashicorp/raft uses.
const (
	keyCurrentTerm  = "CurrentTerm"
	keyLastVoteTerm = "LastVoteTerm"
	keyLastVoteCand = "LastVoteCand"
)

// errKeyNotFound has the text Raft compares with.
var errKeyNotFound = errors.New("not found")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// stable is the raft.StableStore. mu serialises writers and guards all fields.
type stable struct {
	mu   sync.Mutex
	file vfs.File
	path string
	seq  uint64            // of the newest slot, which is slot seq%2
	vals map[string][]byte // as the newest slot that verifies has them
	bad  error             // why the newest slot cannot be known, if so

	shown atomic.Pointer[shown] // of the fields above, for who must not wait for a disk
}

// shown is what others look at of the term.
type shown struct {
	term uint64
	bad  error
}

// show follows each change of vals and bad; mu is held.
func (s *stable) show() {
	sh := &shown{bad: s.bad}
	if v := s.vals[keyCurrentTerm]; len(v) == 8 {
		sh.term = binary.BigEndian.Uint64(v)
	}
	s.shown.Store(sh)
}

// openStable opens the file, made if absent. Where damage is allowed, a file
// that is missing or has a slot that does not verify is one that replace mends;
// the caller tells that it should be there.
func openStable(fsys vfs.FS, name string, damage, lost bool) (_ *stable, err error) {
	s := &stable{path: name, vals: make(map[string][]byte)}
	_, err = fsys.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		if lost {
			s.bad = &CorruptError{Path: name, Reason: "missing, but there is a log"}
			s.show()
			return s, nil
		}
		b := make([]byte, stableSize)
		copy(b, encodeSlot(0, nil))
		copy(b[slotPlace:], encodeSlot(1, nil))
		err = vfs.WriteFileAtomic(fsys, name, b)
	}
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", name, err)
	}
	if s.file, err = fsys.OpenReadWrite(name); err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.file.Close())
		}
	}()
	for slot := range uint64(2) {
		b := make([]byte, slotBytes)
		if n, err := s.file.ReadAt(b, int64(slot)*slotPlace); n < len(b) {
			if !damage {
				return nil, &CorruptError{Path: name, Reason: fmt.Sprintf("slot %d: %v", slot, err)}
			}
			b = nil
		}
		seq, vals, err := decodeSlot(b)
		if err != nil || seq%2 != slot {
			s.bad = &CorruptError{Path: name, Reason: fmt.Sprintf("slot %d does not verify", slot)}
			if !damage {
				return nil, s.bad
			}
			continue
		}
		if seq >= s.seq {
			s.seq, s.vals = seq, vals
		}
	}
	s.show()
	if s.bad != nil {
		return s, nil
	}
	// After a kill the newest slot may be in the page cache alone, even marked
	// clean by a failed sync, and Raft may repeat the vote in it without a write.
	return s, s.write(s.seq, s.vals)
}

// write makes vals durable in the slot of seq.
func (s *stable) write(seq uint64, vals map[string][]byte) error {
	if _, err := s.file.WriteAt(encodeSlot(seq, vals), int64(seq%2)*slotPlace); err != nil {
		return fmt.Errorf("write %s: %w", s.path, err)
	}
	if err := s.file.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", s.path, err)
	}
	return nil
}

func encodeSlot(seq uint64, vals map[string][]byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, slotMagic)
	b = append(b, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint64(b, seq)
	b = append(b, byte(len(vals)))
	keys := make([]string, 0, len(vals))
	for k := range vals {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		b = append(append(b, byte(len(k))), k...)
		b = append(append(b, byte(len(vals[k]))), vals[k]...)
	}
	if len(b) > slotBytes {
		return nil
	}
	b = append(b, make([]byte, slotBytes-len(b))...)
	binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(b[8:], castagnoli))
	return b
}

var errSlot = errors.New("slot does not verify")

func decodeSlot(b []byte) (seq uint64, vals map[string][]byte, err error) {
	if len(b) != slotBytes || binary.LittleEndian.Uint32(b) != slotMagic ||
		binary.LittleEndian.Uint32(b[4:]) != crc32.Checksum(b[8:], castagnoli) {
		return 0, nil, errSlot
	}
	seq = binary.LittleEndian.Uint64(b[8:])
	vals = make(map[string][]byte)
	rest := b[17:]
	field := func() []byte {
		if len(rest) == 0 || int(rest[0]) > len(rest)-1 {
			err = errSlot
			return nil
		}
		n := 1 + int(rest[0]) // 255 is a length, too
		f := rest[1:n]
		rest = rest[n:]
		return f
	}
	for range b[16] {
		k, v := field(), field()
		vals[string(k)] = bytes.Clone(v)
	}
	return seq, vals, err
}

// set makes a value durable. One that is already there costs nothing: NewRaft
// writes the term it has just read.
func (s *stable) set(key string, val []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.vals[key]; ok && bytes.Equal(old, val) {
		return nil
	}
	if len(key) > 255 || len(val) > 255 {
		return fmt.Errorf("store %s: %d bytes is too long", key, len(val))
	}
	vals := make(map[string][]byte, len(s.vals)+1)
	for k, v := range s.vals {
		vals[k] = v
	}
	vals[key] = bytes.Clone(val)
	if encodeSlot(s.seq+1, vals) == nil {
		return fmt.Errorf("store %s: the values together are too long", key)
	}
	if err := s.write(s.seq+1, vals); err != nil {
		return err
	}
	s.seq, s.vals = s.seq+1, vals
	s.show()
	return nil
}

func (s *stable) get(key string) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.vals[key]
	return bytes.Clone(v), ok
}

func (s *stable) uint64(key string) uint64 {
	if v, ok := s.get(key); ok && len(v) == 8 {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

func (s *stable) term() uint64 { return s.uint64(keyCurrentTerm) }

func (s *stable) voted() bool {
	if s.damage() != nil {
		return true // nobody knows better
	}
	_, ok := s.get(keyLastVoteCand)
	return ok || s.uint64(keyLastVoteTerm) != 0
}

// known says whether Raft ever stored anything that must not be forgotten.
func (s *stable) known() bool { return s.term() > 0 || s.voted() }

// scrub verifies both slots on the disk. The values are known as long as the
// file is open, so a slot that does not verify is written again with them.
func (s *stable) scrub(logger hclog.Logger) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bad != nil {
		return nil
	}
	for slot := range uint64(2) {
		b := make([]byte, slotBytes)
		n, err := s.file.ReadAt(b, int64(slot)*slotPlace)
		if n == len(b) {
			seq, _, bad := decodeSlot(b)
			if bad == nil && (seq == s.seq || seq+1 == s.seq) && seq%2 == slot {
				continue
			}
		} else if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read %s: %w", s.path, err)
		}
		logger.Warn("a slot of the term and vote is damaged and written again", "file", s.path, "slot", slot)
		seq := s.seq
		if seq%2 != slot {
			seq-- // the older one, with the newer values: it is never read while the other verifies
		}
		if _, err := s.file.WriteAt(encodeSlot(seq, s.vals), int64(slot)*slotPlace); err != nil {
			return fmt.Errorf("write %s: %w", s.path, err)
		}
		if err := s.file.Sync(); err != nil {
			return fmt.Errorf("sync %s: %w", s.path, err)
		}
	}
	return nil
}

// damage is why Raft may not use the file, if so.
func (s *stable) damage() error { return s.shown.Load().bad }

// floor is the highest term that what verifies of the file shows.
func (s *stable) floor() uint64 { return max(s.term(), s.uint64(keyLastVoteTerm)) }

// replace makes the file anew, with a term and no vote.
func (s *stable) replace(fsys vfs.FS, term uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	vals := map[string][]byte{keyCurrentTerm: binary.BigEndian.AppendUint64(nil, term)}
	b := make([]byte, stableSize)
	copy(b, encodeSlot(2, vals))
	copy(b[slotPlace:], encodeSlot(1, vals))
	if err := vfs.WriteFileAtomic(fsys, s.path, b); err != nil {
		return fmt.Errorf("replace %s: %w", s.path, err)
	}
	f, err := fsys.OpenReadWrite(s.path)
	if err != nil {
		return fmt.Errorf("open %s: %w", s.path, err)
	}
	if s.file != nil {
		if err := s.file.Close(); err != nil {
			return errors.Join(fmt.Errorf("close %s: %w", s.path, err), f.Close())
		}
	}
	s.file, s.seq, s.vals, s.bad = f, 2, vals, nil
	s.show()
	return nil
}

func (s *stable) close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}

// enterStable is enter for a call that needs the term and the vote.
func (s *Store) enterStable() {
	s.enter()
	if bad := s.stable.damage(); bad != nil {
		defer s.leave()
		s.Fail(&DamageError{Err: bad})
	}
}

// Set implements raft.StableStore. The value is durable on return.
func (s *Store) Set(key, val []byte) error {
	s.enterStable()
	defer s.leave()
	if err := s.stable.set(string(key), val); err != nil {
		s.Fail(err)
	}
	if s.dead.Load() { // it hung, and nobody may hear of the vote now
		runtime.Goexit()
	}
	return nil
}

// Get implements raft.StableStore. A missing key's error reads "not found".
func (s *Store) Get(key []byte) ([]byte, error) {
	s.enterStable()
	defer s.leave()
	v, ok := s.stable.get(string(key))
	if !ok {
		return nil, errKeyNotFound
	}
	return v, nil
}

// SetUint64 implements raft.StableStore.
func (s *Store) SetUint64(key []byte, val uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, val))
}

// GetUint64 implements raft.StableStore.
func (s *Store) GetUint64(key []byte) (uint64, error) {
	s.enterStable()
	defer s.leave()
	v, ok := s.stable.get(string(key))
	if !ok {
		return 0, errKeyNotFound
	}
	if len(v) != 8 {
		s.Fail(&CorruptError{Path: s.stable.path, Reason: fmt.Sprintf("%s has %d bytes", key, len(v))})
	}
	return binary.BigEndian.Uint64(v), nil
}
