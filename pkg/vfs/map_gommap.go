//go:build (linux && (amd64 || 386)) || (darwin && amd64)

package vfs

import (
	"os"

	"github.com/tysonmote/gommap"
)

type mapping struct{ m gommap.MMap }

func mapFile(f *os.File, _ int64) (Mapping, error) {
	m, err := gommap.Map(f.Fd(), gommap.PROT_READ, gommap.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return &mapping{m}, nil
}

func (m *mapping) Bytes() []byte { return m.m }

func (m *mapping) Close() error {
	if m.m == nil {
		return nil
	}
	b := m.m
	m.m = nil
	return b.UnsafeUnmap()
}
