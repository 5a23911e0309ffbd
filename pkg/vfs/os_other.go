//go:build !linux

package vfs

import "os"

// datasync is the plain fsync of the os package, which on darwin reaches the
// platter (F_FULLFSYNC).
func datasync(f *os.File) error { return f.Sync() }

// allocate sets the length alone: a full disk shows itself later.
func allocate(f *os.File, size int64) error { return extend(f, size) }

// writeback leaves it to the system when to begin.
func writeback(*os.File, int64, int64) error { return nil }
