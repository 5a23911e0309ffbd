package authz

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/casbin/casbin/v3"
	"github.com/casbin/casbin/v3/model"
	"github.com/casbin/casbin/v3/persist"
)

// Files name the casbin model and policy. Without a model it is DefaultModel.
type Files struct{ Model, Policy string }

// DefaultModel is the model of "Distributed Services with Go" with groups: lines
// `g, alice, writers` in the policy make rules for writers count for alice.
const DefaultModel = `[request_definition]
r = sub, obj, act

[policy_definition]
p = sub, obj, act

[role_definition]
g = _, _

[policy_effect]
e = some(where (p.eft == allow))

[matchers]
m = g(r.sub, p.sub) && r.obj == p.obj && r.act == p.act
`

// maxFile bounds a file in bytes; it is held in memory.
const maxFile = 16 << 20

// FileError reports a file that could not be used. Line is 0 when it is about the
// whole.
type FileError struct {
	Path string
	Line int
	Err  error
}

func (e *FileError) Error() string {
	if e.Line > 0 {
		return fmt.Sprintf("%s:%d: %v", e.Path, e.Line, e.Err)
	}
	return fmt.Sprintf("%s: %v", e.Path, e.Err)
}

func (e *FileError) Unwrap() error { return e.Err }

// Verify reports, as a *FileError, why files could not be put in force.
func Verify(f Files) error {
	src, err := f.read()
	if err != nil {
		return err
	}
	_, err = f.compile(src)
	return err
}

// sources are what the files hold. They are read once, so that what is compared
// is what is loaded.
type sources struct{ model, policy, err string }

func (f Files) read() (src sources, err error) {
	if f.Model != "" {
		if src.model, err = readFile(f.Model); err != nil {
			return sources{err: err.Error()}, err
		}
	}
	if src.policy, err = readFile(f.Policy); err != nil {
		return sources{err: err.Error()}, err
	}
	return src, nil
}

func readFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", &FileError{Path: path, Err: cause(err)}
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return "", &FileError{Path: path, Err: cause(err)}
	case len(b) > maxFile:
		return "", &FileError{Path: path, Err: fmt.Errorf("larger than %d MiB", maxFile>>20)}
	}
	return string(b), nil
}

// cause drops the path from an error of package os, since FileError has it.
func cause(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// compile makes a policy of sources, all of it or none.
func (f Files) compile(src sources) (p *policy, err error) {
	blamed := f.Policy
	defer func() {
		if r := recover(); r != nil { // casbin parses by slicing
			p, err = nil, &FileError{Path: blamed, Err: fmt.Errorf("casbin cannot read it: %v", r)}
		}
	}()
	text := DefaultModel
	if f.Model != "" {
		text, blamed = src.model, f.Model
	}
	m, err := model.NewModelFromString(text)
	if err != nil {
		return nil, &FileError{Path: blamed, Err: err}
	}
	blamed = f.Policy
	if err := f.rules(m, src.policy); err != nil {
		return nil, err
	}
	if f.Model != "" {
		blamed = f.Model
	}
	e, err := casbin.NewEnforcer(m)
	if err == nil {
		err = e.BuildRoleLinks()
	}
	if err == nil {
		// What the matcher lacks shows only when it is asked.
		_, err = e.Enforce("nobody", object, Produce.String())
	}
	if err != nil {
		first, _, _ := strings.Cut(err.Error(), "\n") // of a panic in casbin it is a stack
		return nil, &FileError{Path: blamed, Err: errors.New(first)}
	}
	p = &policy{enforcer: e, known: make(map[question]bool), failed: func(error) {}}
	if f.Model == "" {
		p.index = index(m)
	}
	return p, nil
}

// index is what the rules of a policy under DefaultModel give each subject, by its
// own name.
func index(m model.Model) map[string]powers {
	by := make(map[string]powers)
	for _, rule := range m["p"]["p"].Policy {
		for a, name := range actionNames {
			if rule[2] == name {
				by[rule[0]] |= of(Action(a))
			}
		}
	}
	return by
}

// rules reads the policy's lines into a model. An empty policy is refused: it
// would shut out everybody, and is more often a file that is being written.
func (f Files) rules(m model.Model, text string) error {
	lines := bufio.NewScanner(strings.NewReader(text))
	lines.Buffer(nil, maxFile+1)
	found := false
	for n := 1; lines.Scan(); n++ {
		fields, err := fieldsOf(strings.TrimSpace(strings.TrimPrefix(lines.Text(), "\ufeff")))
		if err == nil && len(fields) > 0 {
			found = found || strings.HasPrefix(fields[0], "p")
			if err = f.known(fields); err == nil {
				err = persist.LoadPolicyArray(fields, m)
			}
		}
		if err != nil {
			return &FileError{f.Policy, n, err}
		}
	}
	if err := lines.Err(); err != nil {
		return &FileError{Path: f.Policy, Err: err}
	}
	if !found {
		return &FileError{Path: f.Policy, Err: errors.New("it has no rule (p, subject, *, action), and would refuse everybody everything")}
	}
	return nil
}

// fieldsOf splits a line as casbin's file adapter does. Blank lines and comments
// have none.
func fieldsOf(line string) ([]string, error) {
	if line == "" || strings.HasPrefix(line, "#") {
		return nil, nil
	}
	r := csv.NewReader(strings.NewReader(line))
	r.Comment, r.TrimLeadingSpace = '#', true
	fields, err := r.Read()
	switch {
	case err != nil:
		return nil, fmt.Errorf("%q: %w", line, err)
	case fields[0] == "":
		return nil, fmt.Errorf("%q: begins with p or g", line)
	}
	return fields, nil
}

// known refuses, under the model that is ours, what can never match.
func (f Files) known(fields []string) error {
	if f.Model != "" || fields[0] != "p" || len(fields) != 4 {
		return nil
	}
	switch {
	case fields[1] == "":
		return errors.New("a rule for nobody")
	case fields[2] != object:
		return fmt.Errorf("object %q: there is one log, and it is written %s", fields[2], object)
	case !isAction(fields[3]):
		return fmt.Errorf("action %q: one of %s", fields[3], actionList())
	}
	return nil
}
