package vfs

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// writeback is sync_file_range(2) that only begins to write. It makes nothing
// durable. An error of the disk that it meets is the write's: pages that could not
// be given a place may be dropped for it, and the next datasync then knows of
// nothing to write. Any other error says that there is no such call here.
func writeback(f *os.File, off, n int64) error {
	err := unix.SyncFileRange(int(f.Fd()), off, n, unix.SYNC_FILE_RANGE_WRITE)
	switch {
	case errors.Is(err, syscall.EIO), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return err
	}
	return nil
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
