package vfs

import (
	"errors"
	"io/fs"
	"os"
)

// Map implements [Mapper]. An empty file has an empty mapping.
func (OS) Map(name string) (m Mapping, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	// The mapping outlives the descriptor.
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() == 0 {
		return emptyMapping{}, nil
	}
	mapped, err := mapFile(f, info.Size())
	if err != nil {
		return nil, &fs.PathError{Op: "map", Path: name, Err: err}
	}
	return mapped, nil
}

type emptyMapping struct{}

func (emptyMapping) Bytes() []byte { return nil }
func (emptyMapping) Close() error  { return nil }
