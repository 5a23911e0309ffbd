// Command licenses lists the modules that programs are built from with their licences, as
// Markdown, and fails where one is unknown or not permissive enough to ship in a binary.
//
//	licenses <module dir> <package>...
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/licensecheck"
)

// allowed are licences under which a module may be linked into our programs. MPL-2.0 asks
// for the source of its own files only, which are public as they are.
var allowed = []string{"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MPL-2.0", "Unicode-DFS-2016"}

// enough is how much of a file, in percent, has to be a licence that is known.
const enough = 75

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: licenses <module dir> <package>...")
		os.Exit(2)
	}
	if err := run(os.Stdout, os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "licenses:", err)
		os.Exit(1)
	}
}

func run(out io.Writer, dir string, packages []string) error {
	mods, err := modules(dir, packages)
	if err != nil {
		return err
	}
	var errs []error
	fmt.Fprint(out, "| module | licence |\n|---|---|\n")
	for _, path := range slices.Sorted(func(yield func(string) bool) {
		for p := range mods {
			if !yield(p) {
				return
			}
		}
	}) {
		ids, err := licenses(mods[path])
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", path, err))
			continue
		}
		fmt.Fprintf(out, "| %s | %s |\n", path, strings.Join(ids, ", "))
	}
	return errors.Join(errs...)
}

// modules answers the folders of the modules that packages need, by path, but for the one
// they are in and Go's own library.
func modules(dir string, packages []string) (map[string]string, error) {
	cmd := exec.Command("go", append([]string{"list", "-deps", "-json=Module"}, packages...)...)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	data, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	mods := map[string]string{}
	for dec := json.NewDecoder(bytes.NewReader(data)); ; {
		var p struct {
			Module *struct {
				Path, Dir string
				Main      bool
			}
		}
		switch err := dec.Decode(&p); {
		case errors.Is(err, io.EOF):
			return mods, nil
		case err != nil:
			return nil, err
		case p.Module != nil && !p.Module.Main:
			mods[p.Module.Path] = p.Module.Dir
		}
	}
}

// licenses answers the SPDX identifiers of the licences in a module's root.
func licenses(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		name := strings.ToUpper(e.Name())
		if e.IsDir() || !strings.HasPrefix(name, "LICEN") && !strings.HasPrefix(name, "COPYING") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		found := licensecheck.Scan(text)
		if found.Percent < enough {
			return nil, fmt.Errorf("%s: %.0f %% of it is a known licence", e.Name(), found.Percent)
		}
		for _, m := range found.Match {
			if !slices.Contains(ids, m.ID) {
				ids = append(ids, m.ID)
			}
		}
	}
	if len(ids) == 0 {
		return nil, errors.New("no licence found")
	}
	for _, id := range ids {
		if !slices.Contains(allowed, id) {
			return nil, fmt.Errorf("%s is not among those we ship: %s", id, strings.Join(allowed, ", "))
		}
	}
	slices.Sort(ids)
	return ids, nil
}
