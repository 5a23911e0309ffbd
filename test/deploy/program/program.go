// Package program builds logd and logproxy and asks them what they take.
package program

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// Programs are logd and logproxy, built into a folder.
type Programs struct {
	dir string

	mu    sync.Mutex
	usage map[string]string // by words of the command; guarded by mu
}

// Build builds both programs from the checkout that this module stands in, into dir.
func Build(dir string) (*Programs, error) {
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/logd-io/logd").Output()
	if err != nil {
		return nil, fmt.Errorf("look for the checkout: %w", err)
	}
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", dir+string(filepath.Separator), "./cmd/logd", "./cmd/logproxy")
	cmd.Dir = strings.TrimSpace(string(root)) // with its own go.mod: what ships
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return In(dir), nil
}

// In are the programs that have been built into dir.
func In(dir string) *Programs { return &Programs{dir: dir, usage: map[string]string{}} }

// Dir is where they are, for PATH.
func (p *Programs) Dir() string { return p.dir }

// Path is where the program called name is.
func (p *Programs) Path(name string) string { return filepath.Join(p.dir, name) }

var (
	option  = regexp.MustCompile(`(?m)^ {2}-([a-z-]+)(=\S+)?$`)
	command = regexp.MustCompile(`^[a-z-]+$`)
)

// Check says what is wrong with a command line as the programs see it: whether
// the program has the command, and the command the flags, each with a value where
// it takes one. Without an error it answers the values by flag, and what is left.
func (p *Programs) Check(argv []string) (flags map[string][]string, rest []string, err error) {
	if len(argv) == 0 || argv[0] != "logd" && argv[0] != "logproxy" {
		return nil, nil, fmt.Errorf("%q: neither logd nor logproxy", argv)
	}
	words := 1
	for words < len(argv) && words < 4 && command.MatchString(argv[words]) {
		words++
	}
	usage := ""
	for ; words > 1 && usage == ""; words-- { // `logd tls cert create`, or `logd inspect list DIR`
		if usage, err = p.help(argv[:words]); usage != "" {
			break
		}
	}
	if usage == "" {
		return nil, nil, fmt.Errorf("%q: there is no such command: %w", argv, err)
	}
	takes := map[string]bool{} // a flag of the command, and whether it has a value
	for _, m := range option.FindAllStringSubmatch(usage, -1) {
		takes[m[1]] = m[2] != ""
	}
	flags = map[string][]string{}
	for rest = argv[words:]; len(rest) > 0 && strings.HasPrefix(rest[0], "-"); rest = rest[1:] {
		name, value, given := strings.Cut(strings.TrimLeft(rest[0], "-"), "=")
		valued, known := takes[name]
		switch {
		case !known:
			return nil, nil, fmt.Errorf("%q: %s has no flag -%s", argv, strings.Join(argv[:words], " "), name)
		case valued && !given:
			if len(rest) == 1 {
				return nil, nil, fmt.Errorf("%q: -%s takes a value", argv, name)
			}
			value, rest = rest[1], rest[1:]
		}
		flags[name] = append(flags[name], value)
	}
	for _, r := range rest {
		if strings.HasPrefix(r, "-") {
			return nil, nil, fmt.Errorf("%q: %s comes too late to be a flag", argv, r)
		}
	}
	return flags, slices.Clone(rest), nil
}

// help is what `program command -h` prints, "" when there is no such command.
func (p *Programs) help(words []string) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := strings.Join(words, " ")
	if usage, ok := p.usage[key]; ok {
		return usage, nil
	}
	out, err := exec.Command(p.Path(words[0]), append(slices.Clone(words[1:]), "-h")...).CombinedOutput()
	if !strings.HasPrefix(string(out), "Usage: "+key+" ") {
		return "", fmt.Errorf("%s -h: %w: %s", key, err, out)
	}
	p.usage[key] = string(out)
	return string(out), nil
}
