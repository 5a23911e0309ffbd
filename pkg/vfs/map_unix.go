//go:build !((linux && (amd64 || 386)) || (darwin && amd64))

package vfs

import (
	"os"

	"golang.org/x/sys/unix"
)

// Where gommap does not build (linux/arm64 first of all), the same with x/sys.
type mapping struct{ b []byte }

func mapFile(f *os.File, size int64) (Mapping, error) {
	b, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return &mapping{b}, nil
}

func (m *mapping) Bytes() []byte { return m.b }

func (m *mapping) Close() error {
	if m.b == nil {
		return nil
	}
	b := m.b
	m.b = nil
	return unix.Munmap(b)
}
