package e2e_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const repo = "../.."

// docRuns are the documents that tests run, with the folder and name of the one that
// does. Every other shell block of the documentation says `sh not run: <reason>`.
var docRuns = map[string]struct {
	folder, test string
	places       []string // those it runs; nil: it sees to it that no others are there
}{
	"README.md":              {"test/e2e", "TestSystemReadmeCluster", nil}, // and TestSystemReadmeIsRun
	"docs/ops/cluster.md":    {"test/e2e", "TestLongClusterRunbook", nil},
	"docs/ops/docker.md":     {"test/e2e", "TestSystemCompose", []string{"docker", "docker trouble"}},
	"docs/ops/kubernetes.md": {"test/deploy/k8s", "TestThePagesCommands", nil},
	"docs/ops/nomad.md":      {"test/deploy/nomad", "TestThePagesCommands", nil},
}

// typed is how a line begins that belongs into a shell.
var typed = regexp.MustCompile(`^(\$ )?((make|logd|logproxy|grpcurl|curl|echo|cat|docker|go|for|export|sudo|scp|ssh|systemctl|journalctl|kubectl|nomad) |bin/|\./)`)

// docBlock is a fenced block, or a comment for the test: <!-- test: words -->.
type docBlock struct {
	line int    // in the document, of what opens it
	info string // what follows the fence; "test" for a comment
	body []string
}

// shell tells where a shell block is run, and how; ok is false for other blocks.
func (b docBlock) shell() (place string, ok bool) {
	lang, rest, _ := strings.Cut(b.info, " ")
	switch lang {
	case "sh", "shell", "bash", "console", "shell-session", "zsh":
		return rest, true
	}
	return "", false
}

// commands are its lines, with those that go on joined.
func (b docBlock) commands() []string {
	return strings.Split(strings.ReplaceAll(strings.Join(b.body, "\n"), "\\\n", ""), "\n")
}

var forTest = regexp.MustCompile(`^<!-- test: (.+) -->$`)

// docBlocks are the blocks of a document, in order.
func docBlocks(t *testing.T, doc string) (all []docBlock) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repo, doc))
	require.NoError(t, err)
	var open *docBlock
	fence := ""
	for i, line := range strings.Split(string(text), "\n") {
		bare := strings.TrimLeft(line, " >")
		switch {
		case open != nil && strings.TrimSpace(bare) == fence:
			all = append(all, *open)
			open = nil
		case open != nil:
			open.body = append(open.body, line)
		case strings.HasPrefix(bare, "```"), strings.HasPrefix(bare, "~~~"):
			fence = bare[:len(bare)-len(strings.TrimLeft(bare, bare[:1]))]
			open = &docBlock{line: i + 1, info: strings.TrimSpace(bare[len(fence):])}
		default:
			if m := forTest.FindStringSubmatch(line); m != nil {
				all = append(all, docBlock{line: i + 1, info: "test", body: []string{m[1]}})
			}
		}
	}
	require.Nil(t, open, "%s: a fence is open", doc)
	return all
}

// Every block of commands in the documentation is run by a test, or says why not.
func TestDocumentedCommandsAreRun(t *testing.T) {
	for doc, run := range docRuns {
		require.FileExists(t, filepath.Join(repo, doc))
		sources, err := filepath.Glob(filepath.Join(repo, run.folder, "*_test.go"))
		require.NoError(t, err)
		require.True(t, slices.ContainsFunc(sources, func(name string) bool {
			return strings.Contains(fileText(t, name), "\nfunc "+run.test+"(t *testing.T) {")
		}), "%s: there is no %s", doc, run.test)
	}
	checked := 0
	err := filepath.WalkDir(repo, func(path string, entry fs.DirEntry, err error) error {
		name := entry.Name()
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (name == "bin" || name == "node_modules" || strings.HasPrefix(name, ".") && path != repo):
			return filepath.SkipDir
		case entry.IsDir() || filepath.Ext(name) != ".md":
			return nil
		}
		doc, err := filepath.Rel(repo, path)
		require.NoError(t, err)
		for _, b := range docBlocks(t, filepath.ToSlash(doc)) {
			place, isShell := b.shell()
			if !isShell {
				for _, line := range b.body {
					require.NotRegexp(t, typed, line, "%s:%d: a command in a block that nobody runs", doc, b.line)
				}
				continue
			}
			checked++
			if why, not := strings.CutPrefix(place, "not run: "); not {
				require.NotEmpty(t, why, "%s:%d: the reason is missing", doc, b.line)
				continue
			}
			run, known := docRuns[filepath.ToSlash(doc)]
			require.True(t, known, "%s:%d: no test runs this document's commands; say `sh not run: <reason>`, or add it to docRuns", doc, b.line)
			require.NotEmpty(t, place, "%s:%d: where is this run?", doc, b.line)
			if run.places != nil {
				require.Contains(t, run.places, place, "%s:%d: %s does not run this", doc, b.line, run.test)
			}
		}
		return nil
	})
	require.NoError(t, err)
	require.Greater(t, checked, 10)
}

// Each message that the runbook explains is one that a program has.
func TestExplainedMessagesExist(t *testing.T) {
	text := fileText(t, filepath.Join(repo, "docs/ops/cluster.md"))
	_, table, ok := strings.Cut(text, "\n## What the log says\n")
	require.True(t, ok)
	sources := ""
	for _, dir := range []string{"cmd", "pkg", "config", "internal"} {
		err := filepath.WalkDir(filepath.Join(repo, dir), func(path string, entry fs.DirEntry, err error) error {
			if err == nil && strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
				sources += fileText(t, path)
			}
			return err
		})
		require.NoError(t, err)
	}
	// A message may be written in pieces.
	sources = regexp.MustCompile(`"\s*\+\s*"`).ReplaceAllString(sources, "")
	rows := regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(table, -1)
	require.Greater(t, len(rows), 20)
	for _, row := range rows {
		require.True(t, strings.Contains(sources, row[1]), "no program says %q", row[1]) // of all sources it would show all
	}
}

// Links inside a runbook lead somewhere.
func TestRunbookLinks(t *testing.T) {
	text := fileText(t, filepath.Join(repo, "docs/ops/cluster.md"))
	heads := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(text, -1) {
		slug := regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		heads[strings.ReplaceAll(slug, " ", "-")] = true
	}
	for _, m := range regexp.MustCompile(`\]\(#([^)]+)\)`).FindAllStringSubmatch(text, -1) {
		require.True(t, heads[m[1]], "#%s leads nowhere", m[1])
	}
}
