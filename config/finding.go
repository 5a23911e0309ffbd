package config

import (
	"errors"
	"fmt"
	"io/fs"
)

// Finding is something wrong with what a setting names: a file, or what it holds.
type Finding struct {
	Path string // of the setting, an HCL path
	Err  error
}

// Findings are all that was found.
type Findings []Finding

// Err is what was found as one error, nil when that is nothing.
func (f Findings) Err() error {
	errs := make([]error, len(f))
	for i, one := range f {
		errs[i] = fmt.Errorf("%s: %w", one.Path, one.Err)
	}
	return errors.Join(errs...)
}

// Found is an *Error that has what was found where the configuration says it, nil when
// that is nothing.
func (c *Node) Found(f Findings) error { return c.origins.found(f, c.sources) }

// Found is what Node.Found is, for a proxy.
func (c *Proxy) Found(f Findings) error { return c.origins.found(f, c.sources) }

func (o origins) found(f Findings, from sources) error {
	if len(f) == 0 {
		return nil
	}
	e := &Error{files: from}
	for _, one := range f {
		e.Problems = append(e.Problems, o.problem(one.Path, "%v%s", one.Err, advice(one.Err)))
	}
	return e
}

// advice says what to do about a file that cannot be opened.
func advice(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "; put it there, or change the setting"
	case errors.Is(err, fs.ErrPermission):
		return "; check as the user that the program runs as, who has to be able to read it"
	}
	return ""
}
