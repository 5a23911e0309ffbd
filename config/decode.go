package config

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// The structs' hcl tags are the schema, as for gohcl. The values are set here
// and not by gohcl.DecodeBody, because durations and sizes are strings in a file
// and because each value's origin is kept for Validate to point at.

var (
	durationType = reflect.TypeFor[time.Duration]()
	sizeType     = reflect.TypeFor[Size]()
)

// A field is one setting of a configuration.
type field struct {
	path  string
	value reflect.Value
}

// tag splits `hcl:"name,kind"`.
func tag(f reflect.StructField) (name, kind string) {
	name, kind, _ = strings.Cut(f.Tag.Get("hcl"), ",")
	return name, kind
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// leaves lists the settings in v that are no blocks; those of a block that may
// be repeated have no path of their own and are left out.
func leaves(v reflect.Value, path string) []field {
	var out []field
	for i := range v.NumField() {
		name, kind := tag(v.Type().Field(i))
		switch {
		case name == "":
		case kind == "optional":
			out = append(out, field{join(path, name), v.Field(i)})
		case kind == "block" && v.Field(i).Kind() == reflect.Struct:
			out = append(out, leaves(v.Field(i), join(path, name))...)
		}
	}
	return out
}

// body lays a body on the struct v.
func (l *loader) body(body hcl.Body, v reflect.Value, path string) {
	schema, _ := gohcl.ImpliedBodySchema(v.Interface())
	content, diags := body.Content(schema)
	for _, d := range diags {
		l.problems = append(l.problems, diagnosed(path, d))
	}
	for i := range v.NumField() {
		name, kind := tag(v.Type().Field(i))
		switch {
		case name == "":
		case kind == "block":
			l.blocks(content.Blocks.OfType(name), v.Field(i), join(path, name))
		case kind == "optional":
			if attr := content.Attributes[name]; attr != nil {
				l.attribute(attr, field{join(path, name), v.Field(i)})
			}
		}
	}
}

func (l *loader) blocks(blocks hcl.Blocks, v reflect.Value, path string) {
	seen := map[string]bool{}
	for _, b := range blocks {
		path := path
		if len(b.Labels) > 0 {
			path = join(path, b.Labels[0])
		}
		if seen[path] {
			l.fail(path, &hcl.Diagnostic{
				Severity: hcl.DiagError,
				Summary:  "Duplicate block",
				Detail:   fmt.Sprintf("There is a %s block in this file already.", strings.Join(append([]string{b.Type}, b.Labels...), " ")),
				Subject:  b.DefRange.Ptr(),
			})
			continue
		}
		seen[path] = true
		l.origins[path] = fileOrigin(b.DefRange)
		if v.Kind() == reflect.Slice {
			l.body(b.Body, labelled(v, b.Labels[0]), path)
		} else {
			l.body(b.Body, v, path)
		}
	}
}

// labelled finds the element of a slice of blocks by its label, in the struct's
// first field, or appends it.
func labelled(slice reflect.Value, label string) reflect.Value {
	for i := range slice.Len() {
		if slice.Index(i).Field(0).String() == label {
			return slice.Index(i)
		}
	}
	slice.Set(reflect.Append(slice, reflect.Zero(slice.Type().Elem())))
	last := slice.Index(slice.Len() - 1)
	last.Field(0).SetString(label)
	return last
}

func (l *loader) attribute(attr *hcl.Attribute, f field) {
	l.origins[f.path] = fileOrigin(attr.Range)
	value, diags := attr.Expr.Value(nil)
	if diags.HasErrors() {
		for _, d := range diags {
			l.fail(f.path, d)
		}
		return
	}
	if !value.IsWhollyKnown() { // what the parser puts for an expression it has complained about
		l.failed[f.path] = true
		return
	}
	if l.assign(f, value) {
		delete(l.failed, f.path)
	}
}

// assign sets a field, whose origin is noted, and reports whether the value is of its
// type. One beyond what the type can hold is left to Validate, which knows the setting's
// range.
func (l *loader) assign(f field, value cty.Value) bool {
	err := set(f.value, value)
	var beyond *beyondError
	if errors.As(err, &beyond) {
		f.value.SetInt(beyond.nearest)
		at := l.origins[f.path]
		at.beyond = beyond
		l.origins[f.path] = at
		return true
	}
	if err != nil {
		l.invalid(f.path, err)
		return false
	}
	return true
}

// beyondError is a value outside what its type can hold.
type beyondError struct {
	written string
	nearest int64  // that the type can hold
	limit   string // that, as one would write it
}

func (e *beyondError) Error() string {
	most := "at most"
	if e.nearest < 0 {
		most = "at least"
	}
	return fmt.Sprintf("%s is out of range: %s %s", e.written, most, e.limit)
}

// durationPattern is what a duration looks like, of any length.
var durationPattern = regexp.MustCompile(`^[+-]?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$`)

// longest and mostBytes are the ends of the types, as one would write them.
const (
	longest   = "2562047h"
	mostBytes = "8388607TiB"
)

// text sets a field from a flag or the environment.
func (l *loader) text(f field, text, where string) {
	value := cty.StringVal(text)
	if f.value.Kind() == reflect.Slice {
		var items []cty.Value
		for item := range strings.SplitSeq(text, ",") {
			if item = strings.TrimSpace(item); item != "" {
				items = append(items, cty.StringVal(item))
			}
		}
		value = cty.TupleVal(items)
	}
	l.origins[f.path] = origin{where: where}
	l.assign(f, value)
}

// fail notes what the parser says of the value or block at path.
func (l *loader) fail(path string, d *hcl.Diagnostic) {
	l.failed[path] = true
	l.problems = append(l.problems, diagnosed(path, d))
}

// invalid notes that the value at path is not of its type.
func (l *loader) invalid(path string, err error) {
	l.failed[path] = true
	l.problems = append(l.problems, l.origins.problem(path, "%v", err))
}

// set converts a value from a file to the field's type. null says nothing.
func set(v reflect.Value, value cty.Value) error {
	if value.IsNull() {
		return nil
	}
	switch {
	case v.Type() == durationType:
		text, ok := text(value)
		d, err := time.ParseDuration(text)
		switch {
		case ok && err != nil && durationPattern.MatchString(text) && text[0] == '-':
			return &beyondError{written(value), math.MinInt64, "-" + longest}
		case ok && err != nil && durationPattern.MatchString(text):
			return &beyondError{written(value), math.MaxInt64, longest}
		case !ok || err != nil:
			return fmt.Errorf(`%s is not a duration: write a number and a unit, like "300ms", "10s" or "1h"`, written(value))
		}
		v.SetInt(int64(d))
		return nil
	case v.Type() == sizeType:
		if value.Type() == cty.Number {
			break
		}
		text, ok := text(value)
		if !ok {
			return fmt.Errorf(`%s is not a size: write "64MiB"`, written(value))
		}
		n, err := ParseSize(text)
		v.SetInt(int64(n))
		return err
	case v.Kind() == reflect.Slice:
		list, err := convert.Convert(value, cty.List(cty.String))
		if err != nil {
			return fmt.Errorf(`%s is not a list of strings: write ["a", "b"]`, written(value))
		}
		items := []string{}
		for _, item := range list.AsValueSlice() {
			if item.IsNull() {
				return fmt.Errorf("null is not a string")
			}
			items = append(items, item.AsString())
		}
		v.Set(reflect.ValueOf(items))
		return nil
	case v.Kind() == reflect.Pointer: // nil: nothing was said
		x := reflect.New(v.Type().Elem())
		if err := set(x.Elem(), value); err != nil {
			return err
		}
		v.Set(x)
		return nil
	case v.Kind() == reflect.Bool:
		b, err := convert.Convert(value, cty.Bool)
		if err != nil || value.Type() == cty.Number {
			return fmt.Errorf("%s is neither true nor false", written(value))
		}
		v.SetBool(b.True())
		return nil
	case v.Kind() == reflect.String:
		text, ok := text(value)
		if !ok {
			return fmt.Errorf("%s is not a string", written(value))
		}
		v.SetString(text)
		return nil
	}
	number, err := convert.Convert(value, cty.Number)
	if err != nil {
		return fmt.Errorf("%s is not a number", written(value))
	}
	return setNumber(v, number.AsBigFloat(), written(value))
}

func setNumber(v reflect.Value, n *big.Float, written string) error {
	if v.Kind() == reflect.Float64 {
		f, _ := n.Float64()
		v.SetFloat(f)
		return nil
	}
	if !n.IsInt() {
		return fmt.Errorf("%s is not a whole number", written)
	}
	least, most, limit := int64(math.MinInt32), int64(math.MaxInt32), strconv.Itoa(math.MaxInt32)
	if v.Type() == sizeType {
		least, most, limit = math.MinInt64, math.MaxInt64, mostBytes
	}
	i, accuracy := n.Int64() // the nearest one, where there is none
	switch {
	case i > most || accuracy == big.Below:
		return &beyondError{written, most, limit}
	case i < least || accuracy == big.Above:
		return &beyondError{written, least, "-" + limit}
	}
	v.SetInt(i)
	return nil
}

// text answers a string as it is and a number as it was written; a bool or a
// list where a string belongs is a mistake.
func text(value cty.Value) (string, bool) {
	if value.Type() != cty.String && value.Type() != cty.Number {
		return "", false
	}
	s, err := convert.Convert(value, cty.String)
	if err != nil {
		return "", false
	}
	return s.AsString(), true
}

// written shows a value in a message.
func written(value cty.Value) string {
	if s, ok := text(value); ok {
		if value.Type() == cty.String {
			return fmt.Sprintf("%q", s)
		}
		return s
	}
	if value.Type() == cty.Bool {
		return fmt.Sprint(value.True())
	}
	return "a " + value.Type().FriendlyName()
}
