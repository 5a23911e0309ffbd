package deptest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// Module is the path every package of ours begins with.
const Module = "github.com/logd-io/logd"

// Package is what the rules look at.
type Package struct {
	ImportPath string
	Doc        string   // synopsis of the package comment; of no test file
	GoFiles    []string // built on this platform; no test files
	Imports    []string // direct, sorted; no imports of tests
}

// Graph holds packages by import path.
type Graph map[string]*Package

// Load asks the go command for every package of the module in dir and all they
// import.
func Load(dir string) (Graph, error) {
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Doc,GoFiles,Imports", "./...")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // as it is built to ship
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w\n%s", err, stderr.Bytes())
	}
	g := Graph{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p Package
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return g, nil
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		g[p.ImportPath] = &p
	}
}

// Ours lists the module's own packages by their path inside it, sorted.
func (g Graph) Ours() []string {
	var ours []string
	for path := range g {
		if rel, ok := Rel(path); ok {
			ours = append(ours, rel)
		}
	}
	slices.Sort(ours)
	return ours
}

// Rel is the path of a package inside the module; ok is false for one outside.
func Rel(importPath string) (rel string, ok bool) {
	return strings.CutPrefix(importPath, Module+"/")
}

// Match reports whether an import path fits a pattern: a path inside the module
// ("pkg/vfs") or outside it ("github.com/hashicorp/raft"), itself alone, or with
// what is below it when the pattern ends in "/...".
func Match(pattern, importPath string) bool {
	if rel, ok := Rel(importPath); ok {
		importPath = rel
	}
	if tree, ok := strings.CutSuffix(pattern, "/..."); ok {
		return importPath == tree || strings.HasPrefix(importPath, tree+"/")
	}
	return importPath == pattern
}

// MatchAny reports whether an import path fits one of the patterns.
func MatchAny(patterns []string, importPath string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return Match(p, importPath) })
}

// Path is a shortest chain of imports from one package to another that target
// accepts, both included; nil when there is none. A package does not reach itself.
func (g Graph) Path(from string, target func(importPath string) bool) []string {
	cameFrom := map[string]string{from: ""}
	for queue := []string{from}; len(queue) > 0; queue = queue[1:] {
		at, ok := g[queue[0]]
		if !ok {
			continue
		}
		for _, next := range at.Imports {
			if _, seen := cameFrom[next]; seen {
				continue
			}
			cameFrom[next] = at.ImportPath
			if target(next) {
				return chain(cameFrom, next)
			}
			queue = append(queue, next)
		}
	}
	return nil
}

func chain(cameFrom map[string]string, last string) []string {
	var path []string
	for at := last; at != ""; at = cameFrom[at] {
		if rel, ok := Rel(at); ok {
			path = append(path, rel)
		} else {
			path = append(path, at)
		}
	}
	slices.Reverse(path)
	return path
}
