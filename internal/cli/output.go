package cli

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Format is the value of -format.
type Format string

const (
	Table Format = "table"
	JSON  Format = "json"
)

func (f *Format) String() string { return string(*f) }

// Set is flag.Value.
func (f *Format) Set(s string) error {
	switch Format(s) {
	case Table, JSON:
		*f = Format(s)
		return nil
	}
	return fmt.Errorf("%q: table or json", s)
}

// FormatFlag adds -format.
func FormatFlag(fs *flag.FlagSet) *Format {
	f := Table
	fs.Var(&f, "format", "`table|json`: how to write the result. Default: table")
	return &f
}

// WriteJSON writes v, indented.
func WriteJSON(w io.Writer, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

// Answer writes an answer: v as JSON, or text for people.
func (f Format) Answer(w io.Writer, v any, text string) error {
	if f == JSON {
		return WriteJSON(w, v)
	}
	_, err := io.WriteString(w, text)
	return err
}

// Rows is a table: a header, then one row a line, each as long as the header.
type Rows struct {
	header []string
	rows   [][]string
}

// NewRows makes a table with these columns.
func NewRows(header ...string) *Rows { return &Rows{header: header} }

// Add adds a row. Empty cells are written as "-", so that columns can be cut.
func (r *Rows) Add(cells ...any) {
	row := make([]string, len(r.header))
	for i := range row {
		row[i] = "-"
		if i < len(cells) && cells[i] != nil {
			// A cell comes from elsewhere: it cannot forge a column or a line.
			if text := strings.Map(printable, fmt.Sprint(cells[i])); text != "" {
				row[i] = text
			}
		}
	}
	r.rows = append(r.rows, row)
}

func printable(c rune) rune {
	if c < ' ' || c == 0x7f {
		return '?'
	}
	return c
}

// Write writes the table, aligned.
func (r *Rows) Write(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{r.header}, r.rows...) {
		fmt.Fprintln(tw, strings.Join(row, "\t")) // into tw's memory; Flush reports what fails
	}
	return tw.Flush()
}

// Fact is a line of a facts block.
type Fact struct{ Name, Value string }

// WriteFacts writes the block that says a process runs, and what as.
//
//	==> logd agent running!
//	         Version: dev
//	        Node ID: n1.0a1b2c3d
func WriteFacts(w io.Writer, title string, facts []Fact) error {
	width := 0
	for _, f := range facts {
		width = max(width, len(f.Name))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "==> %s\n", title)
	for _, f := range facts {
		fmt.Fprintf(&b, "    %*s: %s\n", width, f.Name, f.Value)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
