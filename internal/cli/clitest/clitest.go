// Package clitest checks what every program's commands have in common.
package clitest

import (
	"flag"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/internal/cli"
)

// Commands fails t when a command lacks a synopsis or an example, when an example is
// not one of its own or would not be taken, when a group has none, or when a command
// without -format is not among those whose answer is for one kind of reader, each with
// the reason why.
func Commands(t *testing.T, commands []cli.Command, formatless map[string]string) {
	t.Helper()
	format(t, commands, formatless)
	named := map[string]cli.Command{}
	for _, c := range commands {
		named[c.Name] = c
	}
	for _, c := range commands {
		require.NotEmpty(t, c.Synopsis, c.Name)
		require.LessOrEqual(t, len(c.Synopsis), 50, c.Name)
		require.NotContains(t, c.Long, "Examples:", "%s: they have a place of their own", c.Name)
		if i := strings.LastIndex(c.Name, " "); i >= 0 {
			group, ok := named[c.Name[:i]]
			require.True(t, ok && group.Setup == nil, "%s: the group says nothing", c.Name)
		}
		if c.Setup == nil {
			continue
		}
		require.NotEmpty(t, c.Examples, "%s: no example", c.Name)
		for line := range strings.Lines(c.Examples) {
			example(t, c, strings.TrimSpace(line))
		}
	}
}

// format holds every command that answers something to -format, and those that ask an
// admin server to its variable.
func format(t *testing.T, commands []cli.Command, formatless map[string]string) {
	t.Helper()
	without := map[string]bool{}
	for _, c := range commands {
		if c.Setup == nil {
			continue
		}
		fs := flag.NewFlagSet(c.Name, flag.ContinueOnError)
		c.Setup(fs, cli.Env{})
		if f := fs.Lookup("admin"); f != nil {
			require.Regexp(t, "LOG(D|PROXY)_ADMIN_ADDR", f.Usage, "%s: -admin has a variable (cli.AdminFlags)", c.Name)
		}
		if fs.Lookup("format") == nil {
			without[c.Name] = true
			require.NotEmpty(t, formatless[c.Name], "%s: it lacks -format (cli.FormatFlag); or what is its answer, that programs have no use for it?", c.Name)
		}
	}
	for name := range formatless {
		require.True(t, without[name], "%s: there is no such command without -format", name)
	}
}

func example(t *testing.T, c cli.Command, line string) {
	t.Helper()
	line, _, _ = strings.Cut(line, " | ") // what comes after is another program's
	rest, ok := strings.CutPrefix(line, c.Name)
	require.True(t, ok, "%s: %q is an example of another command", c.Name, line)
	var words []string
	for _, w := range strings.Fields(rest) {
		if !strings.HasPrefix(w, "<") && !strings.HasPrefix(w, ">") { // the shell's
			words = append(words, w)
		}
	}
	fs := flag.NewFlagSet(c.Name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	c.Setup(fs, cli.Env{})
	args, err := cli.Parse(fs, words)
	require.NoError(t, err, line)
	require.Equal(t, c.Args != "", len(args) > 0, "%q: arguments", line)
}
