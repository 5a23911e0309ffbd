package examples_test

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// designs are the pages with numbered invariants, and the packages that keep
// them: what cites a number there, cites that page. strict pages have a test that
// cites each invariant.
var designs = []struct {
	page     string
	packages []string
	strict   bool
}{
	{"pkg/commitlog/DESIGN.md", []string{"pkg/commitlog", "test/crash"}, true},
	{"pkg/replica/DESIGN.md", []string{"pkg/replica", "pkg/raftstore"}, true},
	{"pkg/proxy/DESIGN.md", []string{"pkg/proxy"}, false},
	{"pkg/proxy/forward/DESIGN.md", []string{"pkg/proxy/forward"}, false},
}

var (
	invariant  = regexp.MustCompile(`(?m)^- \*\*(I[0-9]+)\b`)
	citation   = regexp.MustCompile(`\bI[0-9]+\b`)
	testName   = regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z][A-Za-z0-9_]*`)
	commentary = regexp.MustCompile(`//.*`)
)

// TestDesignPagesHold compares the design pages with the code, as is done with
// the page of defects: tests that a page names exist, invariants that code cites
// are on the page, and each invariant of a strict page is cited by a test.
func TestDesignPagesHold(t *testing.T) {
	tests := map[string]bool{}
	for name := range testFunctions(t) {
		_, name, _ = strings.Cut(name, " ")
		tests[name] = true
	}
	for _, d := range designs {
		t.Run(d.page, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join("..", d.page))
			require.NoError(t, err)
			has := map[string]bool{}
			for _, m := range invariant.FindAllStringSubmatch(string(text), -1) {
				require.False(t, has[m[1]], "%s is there twice", m[1])
				has[m[1]] = true
			}
			if d.strict {
				require.NotEmpty(t, has)
			}
			for _, name := range testName.FindAllString(string(text), -1) {
				require.True(t, tests[name], "it names %s, which does not exist", name)
			}
			cited := map[string]bool{} // by a test
			for _, pkg := range d.packages {
				files, err := filepath.Glob(filepath.Join("..", pkg, "*.go"))
				require.NoError(t, err)
				require.NotEmpty(t, files)
				for _, file := range files {
					source, err := os.ReadFile(file)
					require.NoError(t, err)
					for _, comment := range commentary.FindAllString(string(source), -1) {
						for _, i := range citation.FindAllString(comment, -1) {
							require.True(t, has[i], "%s cites %s, which is not on the page", file, i)
							cited[i] = cited[i] || strings.HasSuffix(file, "_test.go")
						}
					}
				}
			}
			for _, i := range slices.Sorted(maps.Keys(has)) {
				require.True(t, cited[i] || !d.strict, "no test cites %s", i)
			}
		})
	}
}
