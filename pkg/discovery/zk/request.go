package zk

import (
	"context"
	"errors"
	"fmt"
)

// Children calls f with the names of the children of path, in no order. The channel is
// closed when there may be others, and for ErrNoNode when path may exist.
func (c *Conn) Children(ctx context.Context, path string, f func(name string)) (<-chan struct{}, error) {
	for {
		changed := c.watch(path)
		body, err := c.call(ctx, opChildren, watched(path))
		if errors.Is(err, ErrNoNode) {
			if _, err = c.call(ctx, opExists, watched(path)); err == nil {
				continue // it was made just now
			}
		}
		if err == nil {
			d := decoder{rest: body}
			d.strings(f)
			err = d.err
		}
		return changed, err
	}
}

// Exists tells whether there is a znode. The channel is closed when that may have
// changed, or its data.
func (c *Conn) Exists(ctx context.Context, path string) (bool, <-chan struct{}, error) {
	changed := c.watch(path)
	_, err := c.call(ctx, opExists, watched(path))
	if errors.Is(err, ErrNoNode) {
		return false, changed, nil
	}
	return err == nil, changed, err
}

func watched(path string) []byte {
	var e encoder
	e.string(path)
	e.bool(true)
	return e
}

// Get is the data of a znode.
func (c *Conn) Get(ctx context.Context, path string) ([]byte, error) {
	var e encoder
	e.string(path)
	e.bool(false)
	body, err := c.call(ctx, opGet, e)
	if err != nil {
		return nil, err
	}
	d := decoder{rest: body}
	data := d.bytes()
	return data, d.err
}

// Add makes a child of path that lives as long as the session, called prefix and a
// number, and path itself where it is missing. It answers the child's path. After
// another error than the server's the child may exist.
func (c *Conn) Add(ctx context.Context, path, prefix string, data []byte) (string, error) {
	for made := false; ; made = true {
		body, err := c.create(ctx, path+"/"+prefix, data, flagEphemeralSequential)
		switch {
		case errors.Is(err, ErrNoNode) && !made:
			if err := c.makePath(ctx, path); err != nil {
				return "", err
			}
			continue
		case err != nil:
			return "", fmt.Errorf("create %s/%s: %w", path, prefix, err)
		}
		d := decoder{rest: body}
		child := string(d.bytes())
		return child, d.err
	}
}

// makePath makes path and those above it where they are missing.
func (c *Conn) makePath(ctx context.Context, path string) error {
	for i := 1; i <= len(path); i++ {
		if i < len(path) && path[i] != '/' {
			continue
		}
		if _, err := c.create(ctx, path[:i], nil, 0); err != nil && !errors.Is(err, ErrNodeExists) {
			// Who may not make what is there is told so, and not that it exists.
			if there, _, e := c.Exists(ctx, path[:i]); e != nil || !there {
				return fmt.Errorf("create %s: %w", path[:i], err)
			}
		}
	}
	return nil
}

func (c *Conn) create(ctx context.Context, path string, data []byte, flags int32) ([]byte, error) {
	var e encoder
	e.string(path)
	e.string(string(data))
	e.acls(c.acl)
	e.int32(flags)
	return c.call(ctx, opCreate, e)
}

// Remove removes a znode, if it is there.
func (c *Conn) Remove(ctx context.Context, path string) error {
	var e encoder
	e.string(path)
	e.int32(-1) // any version
	if _, err := c.call(ctx, opDelete, e); err != nil && !errors.Is(err, ErrNoNode) {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}
