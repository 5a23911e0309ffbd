package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	hcli "github.com/hashicorp/cli"
	"golang.org/x/term"
)

// Exit codes.
const (
	ExitOK      = 0
	ExitFailure = 1
	ExitUsage   = 2
	ExitFatal   = 3
)

// UsageError is a mistake in the command line.
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }
func (e *UsageError) Unwrap() error { return e.Err }

// Usagef makes a UsageError.
func Usagef(format string, args ...any) error {
	return &UsageError{fmt.Errorf(format, args...)}
}

// FatalError is a fault after which the process must not go on.
type FatalError struct{ Err error }

func (e *FatalError) Error() string { return e.Err.Error() }
func (e *FatalError) Unwrap() error { return e.Err }

// ErrReported ends a command that has already told the user what is wrong.
var ErrReported = errors.New("failed")

// Env is the process around a command.
type Env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Environ        []string // as os.Environ
	Terminal       bool     // Stderr is a terminal: progress is shown
	Interactive    bool     // Stdin and Stdout are terminals
}

// OSEnv is the environment of this process.
func OSEnv() Env {
	is := func(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }
	return Env{
		Stdin:       os.Stdin,
		Stdout:      os.Stdout,
		Stderr:      os.Stderr,
		Environ:     os.Environ(),
		Terminal:    is(os.Stderr),
		Interactive: is(os.Stdin) && is(os.Stdout),
	}
}

// Getenv is the value of an environment variable, the last one that is set.
func (e Env) Getenv(name string) string {
	for _, kv := range slices.Backward(e.Environ) {
		if value, ok := strings.CutPrefix(kv, name+"="); ok {
			return value
		}
	}
	return ""
}

// Command is one subcommand. Setup is called for every use, help and completion
// included; it registers the flags and returns what to run with them. A Command
// without Setup is a group, and says what the commands below its name are for.
type Command struct {
	Name     string // with its parents: "operator raft list-peers"
	Synopsis string // one line
	Args     string // of the usage line: "<path>..."; empty: the command takes none
	Long     string // after the usage line
	Examples string // command lines without the program's name, one a line, as "produce <records.txt"
	Setup    func(fs *flag.FlagSet, env Env) Action
}

// Action does a command's work. It ends early, in order, when ctx ends.
type Action func(ctx context.Context, args []string) error

// Main runs the command that args name and returns the process's exit code.
func Main(ctx context.Context, program, version string, commands []Command, env Env, args []string) int {
	c := hcli.NewCLI(program, program+" "+version)
	c.Args = args
	c.AutocompleteNoDefaultFlags = true // its flags would write to the user's shell files
	c.HelpWriter, c.ErrorWriter = env.Stdout, env.Stderr
	c.Commands = map[string]hcli.CommandFactory{}
	for _, cmd := range commands {
		c.Commands[cmd.Name] = func() (hcli.Command, error) {
			return &adapter{ctx, program, cmd, env}, nil
		}
	}
	asked := c.IsHelp() || c.IsVersion()
	switch named := words(args); {
	case asked, completing():
	case len(args) > 0 && len(named) == 0:
		report(env, program, fmt.Errorf("%s comes before any command; options go after it", args[0]))
		return ExitUsage
	case isCommand(commands, c.Subcommand()):
	case isGroup(commands, strings.Join(named, " ")):
		// Nothing was asked of it: show what could be.
		help := hcli.NewCLI(c.Name, c.Version)
		help.Args, help.Commands = append(slices.Clone(named), "-h"), c.Commands
		help.HelpWriter, help.ErrorWriter = env.Stderr, env.Stderr
		_, _ = help.Run() // the exit code says it all
		return ExitUsage
	default:
		report(env, program, fmt.Errorf("unknown command %q; %s -h lists them", strings.Join(named, " "), program))
		return ExitUsage
	}
	code, err := c.Run()
	if err != nil {
		report(env, program, err)
		return ExitFailure
	}
	if code == notFound {
		return ExitUsage
	}
	return code
}

// notFound is what hashicorp/cli exits with when no command matches.
const notFound = 127

func isCommand(commands []Command, name string) bool {
	return slices.ContainsFunc(commands, func(c Command) bool { return c.Name == name && c.Setup != nil })
}

// isGroup reports the name of commands, "operator raft"; "" is the group of all.
func isGroup(commands []Command, name string) bool {
	return name == "" || slices.ContainsFunc(commands, func(c Command) bool { return strings.HasPrefix(c.Name, name+" ") })
}

// words are the arguments before the first flag.
func words(args []string) []string {
	if i := slices.IndexFunc(args, func(a string) bool { return strings.HasPrefix(a, "-") }); i >= 0 {
		return args[:i]
	}
	return args
}

// adapter makes a Command a hashicorp/cli one.
type adapter struct {
	ctx     context.Context //nolint:containedctx // hashicorp/cli's Run takes none
	program string
	cmd     Command
	env     Env
}

func (a *adapter) Synopsis() string { return a.cmd.Synopsis }

// flags are the command's, and what to run with them; a group has neither.
func (a *adapter) flags() (*flag.FlagSet, Action) {
	fs := flag.NewFlagSet(a.cmd.Name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	if a.cmd.Setup == nil {
		return fs, nil
	}
	return fs, a.cmd.Setup(fs, a.env)
}

func (a *adapter) Help() string {
	fs, action := a.flags()
	flags := map[string]*flag.Flag{}
	fs.VisitAll(func(f *flag.Flag) { flags[f.Name] = f })
	usage := []string{"Usage:", a.program, a.cmd.Name}
	switch {
	case action == nil:
		usage = append(usage, "<subcommand>", "[options]")
	case len(flags) > 0:
		usage = append(usage, "[options]")
	}
	if a.cmd.Args != "" {
		usage = append(usage, a.cmd.Args)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", strings.Join(usage, " "))
	b.WriteString("  " + strings.ReplaceAll(strings.TrimSpace(or(a.cmd.Long, a.cmd.Synopsis+".")), "\n", "\n  ") + "\n")
	if a.cmd.Examples != "" {
		b.WriteString("\nExamples:\n\n")
		for line := range strings.Lines(strings.TrimSpace(a.cmd.Examples)) {
			fmt.Fprintf(&b, "  $ %s %s\n", a.program, strings.TrimSpace(line))
		}
	}
	if len(flags) > 0 {
		b.WriteString("\nOptions:\n")
	}
	for _, name := range slices.Sorted(maps.Keys(flags)) {
		f := flags[name]
		value, text := flag.UnquoteUsage(f)
		if value != "" {
			value = "=<" + value + ">"
		}
		fmt.Fprintf(&b, "\n  -%s%s\n      %s\n", name, value, strings.ReplaceAll(text, "\n", "\n      "))
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

func or(s, otherwise string) string {
	if s != "" {
		return s
	}
	return otherwise
}

func (a *adapter) Run(args []string) int {
	fs, action := a.flags()
	rest, err := Parse(fs, args)
	switch {
	case err != nil:
		err = &UsageError{err}
	case a.cmd.Args == "" && len(rest) > 0:
		err = Usagef("unexpected argument %q", rest[0])
	case negative(fs) != nil:
		err = &UsageError{negative(fs)}
	default:
		err = action(a.ctx, rest)
	}
	return a.exit(err)
}

// negative refuses times, numbers and rates below zero, which no command has a use for.
func negative(fs *flag.FlagSet) (err error) {
	fs.Visit(func(f *flag.Flag) {
		g, ok := f.Value.(flag.Getter)
		if !ok {
			return
		}
		sound := true
		switch v := g.Get().(type) {
		case time.Duration:
			sound = v >= 0
		case int:
			sound = v >= 0
		case float64:
			sound = v >= 0 && !math.IsInf(v, 0) // NaN is not either
		}
		if !sound && err == nil {
			err = fmt.Errorf("-%s %s: it must be at least 0", f.Name, f.Value)
		}
	})
	return err
}

// Parse is fs.Parse, but flags may come after arguments too, until "--". It returns
// the arguments.
func Parse(fs *flag.FlagSet, args []string) ([]string, error) {
	var rest []string
	for {
		if err := fs.Parse(args); err != nil {
			return nil, err
		}
		left := fs.Args()
		if consumed := len(args) - len(left); consumed > 0 && args[consumed-1] == "--" {
			return append(rest, left...), nil
		}
		if len(left) == 0 {
			return rest, nil
		}
		rest, args = append(rest, left[0]), left[1:]
	}
}

func (a *adapter) exit(err error) int {
	var usage *UsageError
	var fatal *FatalError
	switch {
	case err == nil:
		return ExitOK
	case errors.Is(err, ErrReported):
		return ExitFailure
	case errors.As(err, &usage):
		report(a.env, a.program, err)
		fmt.Fprintf(a.env.Stderr, "%s %s -h shows how it is used\n", a.program, a.cmd.Name)
		return ExitUsage
	case errors.As(err, &fatal):
		report(a.env, a.program, err)
		return ExitFatal
	}
	report(a.env, a.program, Explain(err))
	return ExitFailure
}

func report(env Env, program string, err error) {
	fmt.Fprintf(env.Stderr, "%s: %v\n", program, err)
}
