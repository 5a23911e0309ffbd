package deptest

import (
	"fmt"
	"slices"
	"strings"
)

// Never says that no package of From reaches one of To, over any number of
// imports. Except lists packages of From that may.
type Never struct {
	From, Except, To []string
	Why              string
}

// Check lists what breaks the rule, one message a package of From and pattern of To.
func (n Never) Check(g Graph) []string {
	var broken []string
	for _, rel := range g.Ours() {
		if !MatchAny(n.From, rel) || MatchAny(n.Except, rel) {
			continue
		}
		for _, to := range n.To {
			path := g.Path(Module+"/"+rel, func(p string) bool { return Match(to, p) })
			if path != nil {
				broken = append(broken, fmt.Sprintf("%s must not reach %s (%s), but does: %s", rel, to, n.Why, strings.Join(path, " → ")))
			}
		}
	}
	return broken
}

// NeverBoth says that no package reaches something of A and something of B,
// itself counted, save those of Except.
type NeverBoth struct {
	A, B   string
	Except []string
	Why    string
}

// Check lists the packages that break the rule.
func (n NeverBoth) Check(g Graph) []string {
	var broken []string
	for _, rel := range g.Ours() {
		if MatchAny(n.Except, rel) {
			continue
		}
		a, b := g.sees(rel, n.A), g.sees(rel, n.B)
		if a != nil && b != nil {
			broken = append(broken, fmt.Sprintf("%s must not see both %s and %s (%s), but does: %s; %s",
				rel, n.A, n.B, n.Why, strings.Join(a, " → "), strings.Join(b, " → ")))
		}
	}
	return broken
}

func (g Graph) sees(rel, pattern string) []string {
	if Match(pattern, rel) {
		return []string{rel}
	}
	return g.Path(Module+"/"+rel, func(p string) bool { return Match(pattern, p) })
}

// Only says that a library is imported directly by the packages of By alone.
type Only struct {
	Library string
	By      []string
	Why     string
}

// Check lists the packages of ours that import the library and may not.
func (o Only) Check(g Graph) []string {
	var broken []string
	for _, rel := range g.Ours() {
		if MatchAny(o.By, rel) {
			continue
		}
		for _, imported := range g[Module+"/"+rel].Imports {
			if Match(o.Library, imported) {
				broken = append(broken, fmt.Sprintf("%s must not import %s (%s)", rel, imported, o.Why))
			}
		}
	}
	return broken
}

// May lists, for each package of ours by pattern, the packages of ours that it
// may import directly. The first pattern that fits a package counts.
type May []Row

// Row is one line of May.
type Row struct {
	Package string
	Imports []string
}

// Check lists imports that no row allows, and packages that have no row. What is
// in always may be imported by all.
func (m May) Check(g Graph, always []string) []string {
	var broken []string
	for _, rel := range g.Ours() {
		i := slices.IndexFunc(m, func(r Row) bool { return Match(r.Package, rel) })
		if i < 0 {
			broken = append(broken, rel+" is in no row of the import table: give it one there and in ARCHITECTURE.md")
			continue
		}
		for _, imported := range g[Module+"/"+rel].Imports {
			to, ours := Rel(imported)
			if ours && !MatchAny(always, to) && !MatchAny(m[i].Imports, to) {
				broken = append(broken, fmt.Sprintf("%s must not import %s: its row allows %s", rel, to, list(m[i].Imports)))
			}
		}
	}
	return broken
}

func list(patterns []string) string {
	if len(patterns) == 0 {
		return "nothing of ours"
	}
	return strings.Join(patterns, ", ")
}

// Names lists packages of ours with a path element that says nothing.
func (g Graph) Names(banned ...string) []string {
	var broken []string
	for _, rel := range g.Ours() {
		for element := range strings.SplitSeq(rel, "/") {
			if slices.Contains(banned, element) {
				broken = append(broken, fmt.Sprintf("%s is called %q: name it for the one thing it does", rel, element))
			}
		}
	}
	return broken
}

// Undocumented lists packages of ours without a package comment. Generated ones
// are described by their .proto files, and a folder of tests alone by its tests.
func (g Graph) Undocumented() []string {
	var broken []string
	for _, rel := range g.Ours() {
		p := g[Module+"/"+rel]
		written := slices.ContainsFunc(p.GoFiles, func(f string) bool { return !strings.HasSuffix(f, ".pb.go") })
		if written && p.Doc == "" {
			broken = append(broken, rel+" has no package comment")
		}
	}
	return broken
}
