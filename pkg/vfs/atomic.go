package vfs

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
)

// TempSuffix ends the name of a file that [WriteFileAtomic] has not finished.
// Whoever owns a directory may remove such files when it opens it.
const TempSuffix = ".tmp"

// WriteFileAtomic replaces the contents of name so that a crash leaves either
// the old file or the new one, whole: tmp → write → sync → rename → sync of
// the directory. The new contents are durable on return. What is left of a file
// that could not be written is removed, if it can be: the disk may be full of it.
//
// An error that wraps one of the file system changed nothing. One of the last sync
// wraps none: by then the new file is there, and a crash may bring back the old.
func WriteFileAtomic(fsys FS, name string, data []byte) error {
	tmp := name + TempSuffix
	if err := fsys.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", tmp, err)
	}
	f, err := fsys.Create(tmp)
	if err != nil {
		return fmt.Errorf("create %s: %w", tmp, err)
	}
	_, err = f.WriteAt(data, 0)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		_ = fsys.Remove(tmp) // the error is told already
		return fmt.Errorf("write %s: %w", tmp, err)
	}
	if err := fsys.Rename(tmp, name); err != nil {
		_ = fsys.Remove(tmp) // likewise
		return fmt.Errorf("rename %s: %w", tmp, err)
	}
	if err := fsys.SyncDir(path.Dir(name)); err != nil {
		return fmt.Errorf("sync directory of %s: %v", name, err) //nolint:errorlint // see above
	}
	return nil
}

// ReadFile returns the contents of name.
func ReadFile(fsys FS, name string) (data []byte, err error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Size()
	if err != nil {
		return nil, fmt.Errorf("size of %s: %w", name, err)
	}
	data = make([]byte, size)
	if n, err := f.ReadAt(data, 0); n < len(data) {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return data, nil
}
