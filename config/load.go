package config

import (
	"cmp"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
)

// From says where a configuration comes from, weakest first: the defaults, then
// Paths in order, then Environ, then Flags.
type From struct {
	// Paths are files and directories. Of a directory, the *.hcl and *.json in it
	// are read in lexical order. A file named *.json is JSON, any other is HCL.
	Paths []string
	// Environ is in the form of os.Environ. A variable is the program's prefix and
	// the HCL path in capitals, LOGD_PORTS_RPC; lists are separated by commas. An
	// empty one says nothing.
	Environ []string
	// Flags are values by HCL path, as text, lists separated by commas.
	Flags map[string]string
}

// LoadNode loads and validates a node's configuration. Its error is an *Error.
func LoadNode(from From) (Node, error) {
	c := DefaultNode()
	l := newLoader()
	l.load(from, nodePrefix, reflect.ValueOf(&c).Elem())
	c.origins, c.sources = l.origins, l.parser.Files()
	return c, l.verdict(c.Validate())
}

// LoadProxy loads and validates a proxy's configuration. Its error is an *Error.
func LoadProxy(from From) (Proxy, error) {
	c := DefaultProxy()
	l := newLoader()
	l.load(from, proxyPrefix, reflect.ValueOf(&c).Elem())
	c.origins, c.sources = l.origins, l.parser.Files()
	return c, l.verdict(c.Validate())
}

type loader struct {
	parser   *hclparse.Parser
	origins  origins
	problems []Problem
	failed   map[string]bool // paths with a problem already
	read     []string        // the files, in order
	partial  bool            // some file could not be read to its end
}

func newLoader() *loader {
	return &loader{parser: hclparse.NewParser(), origins: origins{}, failed: map[string]bool{}}
}

// load lays file after file on the target. Not hcl.MergeFiles: it refuses an
// attribute that two files set, and here the later file wins.
func (l *loader) load(from From, envPrefix string, target reflect.Value) {
	var empty []string
	for _, path := range from.Paths {
		files, ok := l.expand(path)
		if ok && len(files) == 0 {
			empty = append(empty, path)
		}
		for _, file := range files {
			if body := l.parse(file); body != nil {
				l.body(body, target, "")
			}
		}
	}
	if len(l.read) == 0 { // beside other files, a directory for more of them may have none
		for _, dir := range empty {
			l.unreadable(dir, errors.New("there is no *.hcl or *.json in it"))
		}
	}
	l.environ(from.Environ, envPrefix, target)
	l.flags(from.Flags, target)
}

// expand lists the files a path stands for, unless that cannot be known.
func (l *loader) expand(path string) (files []string, ok bool) {
	info, err := os.Stat(path)
	if err != nil {
		l.unreadable(path, err)
		return nil, false
	}
	if !info.IsDir() {
		return []string{path}, true
	}
	entries, err := os.ReadDir(path) // sorted by name
	if err != nil {
		l.unreadable(path, err)
		return nil, false
	}
	for _, e := range entries {
		ext := filepath.Ext(e.Name())
		if e.IsDir() || strings.HasPrefix(e.Name(), ".") || ext != ".hcl" && ext != ".json" {
			continue
		}
		files = append(files, filepath.Join(path, e.Name()))
	}
	return files, true
}

// parse answers what could be understood of a file, if anything.
func (l *loader) parse(name string) hcl.Body {
	src, err := os.ReadFile(name)
	if err != nil {
		l.unreadable(name, err)
		return nil
	}
	l.read = append(l.read, name)
	parse := l.parser.ParseHCL
	if strings.HasSuffix(name, ".json") {
		parse = l.parser.ParseJSON
	}
	file, diags := parse(src, name)
	for _, d := range diags {
		l.problems = append(l.problems, diagnosed("", d))
	}
	l.partial = l.partial || diags.HasErrors()
	if file == nil {
		return nil
	}
	return file.Body
}

func (l *loader) unreadable(path string, err error) {
	l.partial = true
	l.problems = append(l.problems, diagnosed("", &hcl.Diagnostic{
		Severity: hcl.DiagError,
		Summary:  "Cannot read " + path,
		Detail:   err.Error(),
	}))
}

func (l *loader) environ(environ []string, prefix string, target reflect.Value) {
	if len(environ) == 0 {
		return
	}
	vars := map[string]string{}
	for _, kv := range environ {
		if name, value, ok := strings.Cut(kv, "="); ok && value != "" && strings.HasPrefix(name, prefix) {
			vars[name] = value
		}
	}
	for _, f := range leaves(target, "") {
		name := variable(prefix, f.path)
		if value, ok := vars[name]; ok {
			l.text(f, value, "environment "+name)
		}
	}
}

func (l *loader) flags(flags map[string]string, target reflect.Value) {
	fields := map[string]field{}
	for _, f := range leaves(target, "") {
		fields[f.path] = f
	}
	paths := make([]string, 0, len(flags))
	for path := range flags {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	for _, path := range paths {
		f, ok := fields[path]
		if !ok {
			panic("config: a flag for " + path + ", which is no setting") // a command's mistake, not a user's
		}
		l.text(f, flags[path], "flag -"+flagName(path))
	}
}

// verdict joins what loading found with what Validate found, less what merely
// follows from the former.
func (l *loader) verdict(invalid error) error {
	problems := l.problems
	var e *Error
	ranged := map[string]bool{}
	if errors.As(invalid, &e) {
		for _, p := range e.Problems {
			ranged[p.Path] = true
			_, said := l.origins[p.Path]
			if l.failed[p.Path] || l.partial && !said {
				continue
			}
			problems = append(problems, p)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(l.origins)) {
		at := l.origins[path]
		// What Validate finds no fault with, since it has no range for it.
		if at.beyond != nil && !ranged[path] && !l.failed[path] {
			problems = append(problems, l.origins.problem(path, "%v", at.beyond))
		}
	}
	if len(problems) == 0 {
		return nil
	}
	slices.SortStableFunc(problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(l.place(a), l.place(b)), cmp.Compare(a.line(), b.line()))
	})
	return &Error{Problems: problems, files: l.parser.Files()}
}

// place orders problems by the file they are in, those in none at the end.
func (l *loader) place(p Problem) int {
	if p.diag.Subject != nil {
		return slices.Index(l.read, p.diag.Subject.Filename)
	}
	return len(l.read)
}
