package examples_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestDefectsPageNamesItsTests compares docs/defects.md with the code: a test on
// the page is in the package it stands behind, and a test named after a defect is
// in the row of that defect.
func TestDefectsPageNamesItsTests(t *testing.T) {
	page, err := os.ReadFile("../docs/defects.md")
	require.NoError(t, err)
	rows := make(map[string]map[string]bool) // number → "package test"
	number := regexp.MustCompile(`^\| ([0-9]+) \|`)
	word := regexp.MustCompile("`[a-z0-9]+`|Test[A-Za-z0-9]+")
	for line := range strings.Lines(string(page)) {
		m := number.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		cells := strings.Split(strings.TrimSuffix(strings.TrimSpace(line), "|"), "|")
		pkg := ""
		for _, w := range word.FindAllString(cells[len(cells)-1], -1) {
			if name, quoted := strings.CutPrefix(w, "`"); quoted {
				pkg = strings.TrimSuffix(name, "`")
				continue
			}
			if rows[m[1]] == nil {
				rows[m[1]] = make(map[string]bool)
			}
			rows[m[1]][pkg+" "+w] = true
		}
	}
	require.Len(t, rows, 9)

	found := testFunctions(t)
	named := make(map[string]string) // "package test" → number
	ofDefect := regexp.MustCompile(` TestDefect0?([1-9][0-9]?)`)
	for name := range found {
		if m := ofDefect.FindStringSubmatch(name); m != nil {
			named[name] = m[1]
		}
	}
	for defect, tests := range rows {
		for name := range tests {
			require.True(t, found[name], "defect %s: there is no %s", defect, name)
		}
	}
	require.NotEmpty(t, named)
	for name, defect := range named {
		require.True(t, rows[defect][name], "defect %s: the page does not name %s", defect, name)
	}
}

// testFunctions are all tests and fuzz targets there are, as "package test".
func testFunctions(t *testing.T) map[string]bool {
	t.Helper()
	found := make(map[string]bool)
	function := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Za-z0-9_]*)\(`)
	for _, root := range []string{"../cmd", "../config", "../examples", "../internal", "../pkg", "../test"} {
		require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			for _, m := range function.FindAllStringSubmatch(string(text), -1) {
				found[filepath.Base(filepath.Dir(path))+" "+m[1]] = true
			}
			return err
		}))
	}
	return found
}
