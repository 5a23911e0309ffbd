package config

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// Problem is one thing wrong with a configuration.
type Problem struct {
	Path    string // HCL path, "ports.rpc"; empty when the file is no HCL there
	Message string
	Where   string // "file:line", "flag -x", "environment X"; empty: a default, or nowhere

	diag hcl.Diagnostic
}

func (p Problem) String() string {
	var b strings.Builder
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	b.WriteString(p.Message)
	if p.Where != "" {
		b.WriteString(" (" + p.Where + ")")
	}
	return b.String()
}

// Position is the file and line that say what is wrong; empty and 0 when no file does.
func (p Problem) Position() (file string, line int) {
	if p.diag.Subject == nil {
		return "", 0
	}
	return p.diag.Subject.Filename, p.diag.Subject.Start.Line
}

func (p Problem) line() int {
	_, line := p.Position()
	return line
}

// Error is everything wrong with a configuration: by file and line, and then
// what no file says.
type Error struct {
	Problems []Problem

	files map[string]*hcl.File // for the snippets
}

func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Render writes err for a person: a configuration error as one diagnostic a
// problem, with its lines of source wrapped at width, and any other as it is.
func Render(w io.Writer, err error, width uint, color bool) error {
	var e *Error
	if !errors.As(err, &e) {
		_, err := fmt.Fprintf(w, "Error: %v\n", err)
		return err
	}
	diags := make(hcl.Diagnostics, len(e.Problems))
	for i := range e.Problems {
		diags[i] = &e.Problems[i].diag
	}
	return hcl.NewDiagnosticTextWriter(w, e.files, width, color).WriteDiagnostics(diags)
}

// An origin is where a value was said.
type origin struct {
	where string
	rng   *hcl.Range // in a file only
	// beyond is set when the value is more, or less, than the field can hold, which has
	// the nearest that it can.
	beyond *beyondError
}

// sources are what files hold, by their names, for the snippets.
type sources map[string]*hcl.File

// origins maps HCL paths, of blocks too, to where they were said last.
type origins map[string]origin

func fileOrigin(rng hcl.Range) origin {
	return origin{where: fmt.Sprintf("%s:%d", rng.Filename, rng.Start.Line), rng: &rng}
}

// nearest is the origin of the path or else of the block around it.
func (o origins) nearest(path string) origin {
	for {
		if at, ok := o[path]; ok {
			return at
		}
		i := strings.LastIndexByte(path, '.')
		if i < 0 {
			return origin{}
		}
		path = path[:i]
	}
}

// problem says what is wrong with the value at path.
func (o origins) problem(path, format string, args ...any) Problem {
	at := o.nearest(path)
	p := Problem{Path: path, Message: fmt.Sprintf(format, args...), Where: at.where}
	detail := p.Message
	if at.rng == nil && at.where != "" {
		detail += " (" + at.where + ")"
	}
	p.diag = hcl.Diagnostic{
		Severity: hcl.DiagError,
		Summary:  "Invalid " + path,
		Detail:   sentence(detail),
		Subject:  at.rng,
	}
	return p
}

// diagnosed turns what the parser found into a problem.
func diagnosed(path string, d *hcl.Diagnostic) Problem {
	p := Problem{Path: path, Message: d.Summary, diag: *d}
	if d.Detail != "" {
		p.Message += ": " + strings.TrimSuffix(d.Detail, ".")
	}
	if d.Subject != nil {
		p.Where = fileOrigin(*d.Subject).where
	}
	return p
}

func sentence(s string) string {
	if s == "" || strings.HasSuffix(s, ".") {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:] + "."
}
