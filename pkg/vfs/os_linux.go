package vfs

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// writeback is sync_file_range(2) that only begins to write. It is a hint: it
// makes nothing durable, and what goes wrong with it the next datasync tells,
// since an error of the disk stays with the file until then.
func writeback(f *os.File, off, n int64) {
	_ = unix.SyncFileRange(int(f.Fd()), off, n, unix.SYNC_FILE_RANGE_WRITE)
}

// datasync is fdatasync(2): the bytes, and the metadata needed to read them
// back, the length among it. Interrupted before it began, it is called again;
// any other error stands.
func datasync(f *os.File) error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// allocate is fallocate(2). Where the filesystem lacks it the length is set
// alone, and a full disk shows itself later.
func allocate(f *os.File, size int64) error {
	for {
		err := syscall.Fallocate(int(f.Fd()), 0, 0, size)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EOPNOTSUPP):
			return extend(f, size)
		}
		return err
	}
}
