package commitlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/logd-io/logd/pkg/vfs"
)

// lostSuffix ends the name of a segment on its way from a wrong name to its
// own.
const lostSuffix = ".lost"

// rename gives segments that go by another name, as after two were swapped,
// the one their header says: it names first entry and id under a checksum, as
// every frame's checksum does. All leave their wrong names before any takes
// its own, so that a crash leaves no file under another one's name, and none
// is lost.
func (l *Log) rename() error {
	names, err := l.fs.List(l.dir)
	if err != nil {
		return fmt.Errorf("list %s: %w", l.dir, err)
	}
	taken := map[string]bool{}
	own := map[string]string{} // present name → its own
	for _, name := range names {
		taken[name] = true
		if !foreign(name) {
			continue
		}
		first, id, ok, err := l.identity(name)
		if err != nil {
			return err
		}
		if is := segmentName(first, id); ok && is != name {
			own[name] = is
		}
	}
	moved := map[string]string{}
	for _, name := range names {
		is := own[name]
		if is == "" || taken[is] && own[is] == "" {
			continue // whoever has the name has it by right, or is damaged, too
		}
		from := name
		if !strings.HasSuffix(name, lostSuffix) {
			from += lostSuffix
			l.logger.Warn("segment goes by a wrong name", "file", name, "is", is)
			if err := l.move(name, from); err != nil {
				return err
			}
		}
		moved[from] = is
	}
	if len(moved) == 0 {
		return nil
	}
	if err := l.syncDir(); err != nil {
		return err
	}
	for from, is := range moved {
		if err := l.move(from, is); err != nil {
			return err
		}
	}
	return l.syncDir()
}

func (l *Log) move(from, to string) error {
	if err := l.fs.Rename(l.path(from), l.path(to)); err != nil {
		return l.fatal("rename", l.path(from), err)
	}
	return nil
}

// foreign tells what may be a segment from the files that have names of their
// own. A preallocated segment has a header before it has its name.
func foreign(name string) bool {
	for _, suffix := range []string{offsetSuffix, freeSuffix, vfs.TempSuffix} {
		if strings.HasSuffix(name, suffix) {
			return false
		}
	}
	return name != startFile && name != durableFile && name != lockFile && name != startCopy
}

// identity reads what a file's header says it is; ok is false when it is no
// segment's.
func (l *Log) identity(name string) (first, id uint64, ok bool, err error) {
	f, err := l.fs.Open(l.path(name))
	if err != nil {
		return 0, 0, false, fmt.Errorf("open %s: %w", l.path(name), err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var b [segmentHeaderBytes]byte
	if size, err := f.Size(); err != nil || size < segmentHeaderBytes {
		return 0, 0, false, err
	}
	if err := readFull(f, b[:], 0); err != nil {
		return 0, 0, false, fmt.Errorf("read %s: %w", l.path(name), err)
	}
	le := binary.LittleEndian
	if crc(b[:48]) != le.Uint32(b[48:]) || string(b[:8]) != segmentMagic {
		return 0, 0, false, nil
	}
	return le.Uint64(b[16:]), le.Uint64(b[40:]), true, nil
}
