package cli

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// MakeFile has write make a file that did not exist, for its owner alone. When that ends
// well it is on the disk, and otherwise there is none. "-" is stdout, unless that is a
// terminal.
func MakeFile(env Env, file string, write func(io.Writer) error) (err error) {
	if file == "-" {
		if env.Interactive {
			return Usagef("-o is needed: this is not for a terminal")
		}
		return write(env.Stdout)
	}
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Sync(), f.Close(), syncDir(dir)); err != nil {
			err = errors.Join(err, os.Remove(file)) // nobody takes it for a whole one
		}
	}()
	return write(f)
}

// syncDir has a folder's entries on the disk, where the file system has that.
func syncDir(dir *os.File) error {
	err := dir.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		return nil
	}
	return err
}
