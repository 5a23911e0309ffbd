package cli

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/posener/complete"
)

// completing reports that a shell asks what could come next, in the way of bash's
// complete -C: hashicorp/cli answers then, whatever the arguments are.
func completing() bool { return os.Getenv("COMP_LINE") != "" }

// AutocompleteFlags says what each flag's value may be.
func (a *adapter) AutocompleteFlags() complete.Flags {
	fs, _ := a.flags()
	flags := complete.Flags{"-h": complete.PredictNothing}
	fs.VisitAll(func(f *flag.Flag) { flags["-"+f.Name] = predict(f) })
	return flags
}

// AutocompleteArgs says what may follow the flags.
func (a *adapter) AutocompleteArgs() complete.Predictor {
	switch {
	case strings.Contains(a.cmd.Args, "|"):
		return complete.PredictSet(strings.Split(strings.Trim(a.cmd.Args, "<>"), "|")...)
	case strings.Contains(a.cmd.Args, "path"), strings.Contains(a.cmd.Args, "file"), strings.Contains(a.cmd.Args, "dir"):
		return complete.PredictFiles("*")
	}
	return complete.PredictNothing
}

// predict goes by what the flag's usage calls its value, as the help does.
func predict(f *flag.Flag) complete.Predictor {
	value, _ := flag.UnquoteUsage(f)
	switch {
	case value == "":
		return complete.PredictNothing // it takes none
	case strings.Contains(value, "directory"):
		return complete.PredictDirs("*")
	case strings.Contains(value, "file"), strings.Contains(value, "path"):
		return complete.PredictFiles("*")
	case strings.Contains(value, "|"):
		words := slices.DeleteFunc(strings.Split(value, "|"), func(w string) bool { return w == "offset" || w == "time" }) // kinds of values
		return complete.PredictSet(words...)
	}
	return complete.PredictAnything
}

// scripts make a shell ask the program itself: %[1]s is its path as a word, %[2]s its
// name, and %[3]s a word that the shell takes for a command, the path.
var scripts = map[string]string{
	"bash": "complete -o default -C %[3]s %[2]s\n",
	"zsh":  "autoload -U +X bashcompinit && bashcompinit\ncomplete -o nospace -C %[3]s %[2]s\n",
	"fish": `function __complete_%[2]s
    set -lx COMP_LINE (commandline -cp)
    test -z (commandline -ct)
    and set COMP_LINE "$COMP_LINE "
    %[1]s
end
complete -f -c %[2]s -a "(__complete_%[2]s)"
`,
}

// CompletionCommand prints what makes a shell complete program's commands.
func CompletionCommand(program string) Command {
	return Command{
		Name:     "completion",
		Synopsis: "Print what makes a shell complete commands",
		Args:     "<bash|zsh|fish>",
		Long: `Prints a few lines for the shell that is named. In bash, for one session:
source <(` + program + ` completion bash). For all, put them where the shell looks for them:
~/.local/share/bash-completion/completions/` + program + `, ~/.zshrc, or
~/.config/fish/completions/` + program + `.fish.`,
		Examples: "completion bash",
		Setup: func(_ *flag.FlagSet, env Env) Action {
			return func(_ context.Context, args []string) error {
				if len(args) != 1 || scripts[args[0]] == "" {
					return Usagef("name one shell: bash, zsh or fish")
				}
				self, err := os.Executable()
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(env.Stdout, scripts[args[0]], quote(self), program, quote(quote(self)))
				return err
			}
		},
	}
}

// quote makes one word of s in all three shells.
func quote(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return !strings.ContainsRune(plain, r) }) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// plain are the characters that no shell sees anything in.
const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-"
