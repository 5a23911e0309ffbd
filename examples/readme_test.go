package examples_test

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/config"
)

// TestREADMENamesEverySetting compares the chapter Configuring with the structs,
// both ways. In it a setting stands in backticks, inside its block: `log { cache_size }`.
func TestREADMENamesEverySetting(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	_, chapter, ok := strings.Cut(string(text), "\n## Configuring\n")
	require.True(t, ok, "README.md has no chapter Configuring")
	chapter, _, _ = strings.Cut(chapter, "\n## ")
	_, chapter, ok = strings.Cut(chapter, "\nA node requires ")
	require.True(t, ok)
	node, proxy, ok := strings.Cut(chapter, "\nA proxy requires ")
	require.True(t, ok)

	require.Equal(t, settings(reflect.TypeFor[config.Node](), ""), named(node))
	require.Equal(t, settings(reflect.TypeFor[config.Proxy](), ""), named(proxy))
}

// settings lists a configuration's settings by path. A tls block inside another
// counts as one: the README shows its fields once, where a node has them.
func settings(typ reflect.Type, prefix string) []string {
	var paths []string
	for i := range typ.NumField() {
		name, kind, _ := strings.Cut(typ.Field(i).Tag.Get("hcl"), ",")
		field := typ.Field(i).Type
		if field.Kind() == reflect.Slice && kind == "block" {
			field = field.Elem()
		}
		switch {
		case kind == "optional", kind == "block" && name == "tls" && prefix != "":
			paths = append(paths, prefix+name)
		case kind == "block":
			paths = append(paths, settings(field, prefix+name+".")...)
		}
	}
	slices.Sort(paths)
	return paths
}

var (
	quoted = regexp.MustCompile("`[^`]+`")
	// A setting or block { settings }; a label or values in quotes do not count.
	block = regexp.MustCompile(`^([a-z_]+)(?: "[a-z]+")? \{(.*)\}$`)
	word  = regexp.MustCompile(`^[a-z_]+$`)
)

func named(chapter string) []string {
	var paths []string
	for _, q := range quoted.FindAllString(chapter, -1) {
		q = strings.Trim(q, "`")
		if m := block.FindStringSubmatch(q); m != nil {
			for inner := range strings.FieldsSeq(strings.ReplaceAll(m[2], "{}", "")) {
				paths = append(paths, m[1]+"."+inner)
			}
		} else if word.MatchString(q) {
			paths = append(paths, q)
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}
