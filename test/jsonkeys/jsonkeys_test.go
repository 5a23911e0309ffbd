package jsonkeys_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// written are the folders whose types are written as JSON for others.
var written = []string{
	"cmd/logd", "cmd/logproxy", "internal/cli", "internal/cli/validate",
	"pkg/agent", "pkg/proxy", "pkg/telemetry", "pkg/internal/events", "pkg/internal/adminpage",
}

func TestKeys(t *testing.T) {
	seen := 0
	for _, dir := range written {
		files, err := filepath.Glob(filepath.Join("..", "..", dir, "*.go"))
		require.NoError(t, err)
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
			require.NoError(t, err)
			ast.Inspect(f, func(n ast.Node) bool {
				if s, ok := n.(*ast.StructType); ok {
					for _, wrong := range problems(s) {
						t.Errorf("%s: %s", file, wrong)
					}
					seen++
				}
				return true
			})
		}
	}
	require.Greater(t, seen, 100, "the sources are elsewhere now")
}

var snake = regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)

// instead are words that no key has, and what says it.
var instead = map[string]string{
	"addr": "address", "addrs": "addresses", "visible": "next_offset",
	"ms": "seconds", "millis": "seconds", "us": "seconds", "micros": "seconds", "ns": "seconds", "nanos": "seconds",
	"sec": "seconds", "secs": "seconds", "duration": "seconds", "minutes": "seconds",
	"kb": "bytes", "kib": "bytes", "mb": "bytes", "mib": "bytes", "octets": "bytes", "size": "bytes",
	"cluster_name": "cluster", "cluster_uuid": "cluster_id", "leader_name": "leader_id",
}

// units are what a number with such a key counts, which the key's end says.
var units = map[string][]string{
	"lowest": {"offset"}, "next": {"offset", "index"}, "first": {"offset", "index", "sequence"}, "last": {"offset", "index", "term"},
	"free": {"bytes"}, "lag": {"records"}, "held": {"produces"}, "commit": {"index"},
}

// problems is what is wrong with the keys of a struct; nothing, when it has none.
func problems(s *ast.StructType) (wrong []string) {
	var keys, bare []string
	for _, f := range s.Fields.List {
		tag := ""
		if f.Tag != nil {
			tag = reflect.StructTag(strings.Trim(f.Tag.Value, "`")).Get("json")
		}
		key, _, _ := strings.Cut(tag, ",")
		if key != "" && key != "-" {
			keys = append(keys, key)
			wrong = append(wrong, wrongs(key, types.ExprString(f.Type))...)
			continue
		}
		for _, name := range f.Names {
			if name.IsExported() && key != "-" {
				bare = append(bare, name.Name)
			}
		}
	}
	if len(keys) > 0 && len(bare) > 0 {
		wrong = append(wrong, fmt.Sprintf("the struct of %s: %s has no key", keys[0], strings.Join(bare, ", ")))
	}
	return wrong
}

func wrongs(key, typ string) (wrong []string) {
	add := func(format string, args ...any) { wrong = append(wrong, key+": "+fmt.Sprintf(format, args...)) }
	if !snake.MatchString(key) {
		add("keys are in snake case")
	}
	words := strings.Split(key, "_")
	last := words[len(words)-1]
	for word, say := range instead {
		if key == word || slices.Contains(words, word) {
			add("%s is said as %s", word, say)
		}
	}
	integer := slices.Contains([]string{"int", "int64", "uint32", "uint64", "*uint64"}, typ)
	for word, ends := range units {
		if integer && slices.Contains(words, word) && !slices.ContainsFunc(ends, func(end string) bool { return slices.Contains(words[slices.Index(words, word):], end) }) {
			add("of what is it a number? It ends in one of %s", strings.Join(ends, ", "))
		}
	}
	seconds := last == "seconds"
	rate := strings.HasSuffix(key, "_per_second")
	fraction := strings.HasSuffix(typ, "float64")
	switch {
	case strings.Contains(typ, "time.Duration"):
		add("a duration is a number of seconds: float64, and the key ends in _seconds")
	case fraction && !seconds && !rate:
		add("a fraction is of seconds (_seconds) or a rate (_per_second)")
	case (seconds || rate) && !fraction:
		add("seconds and rates are float64, as half a second is one too")
	case last == "bytes" && !integer:
		add("bytes are a number")
	case (key == "node" || key == "leader") && typ == "string":
		add("an id's key ends in _id")
	}
	return wrong
}

func TestTheRuleFindsWhatIsWrong(t *testing.T) {
	for field, want := range map[string]string{
		"A int64 `json:\"stable_ms\"`":              "ms is said as seconds",
		"A time.Duration `json:\"wait_seconds\"`":   "a duration is",
		"A int64 `json:\"held_for_seconds\"`":       "are float64",
		"A float64 `json:\"held_for\"`":             "a fraction is",
		"A uint64 `json:\"next\"`":                  "of what is it a number",
		"A uint64 `json:\"disk_free\"`":             "of what is it a number",
		"A uint64 `json:\"commit_known\"`":          "of what is it a number",
		"A string `json:\"rpcAddr\"`":               "snake case",
		"A string `json:\"rpc_addr\"`":              "addr is said as address",
		"A string `json:\"node\"`":                  "ends in _id",
		"A string `json:\"ok\"`; B string":          "B has no key",
		"A []byte `json:\"value_bytes,omitempty\"`": "bytes are a number",
	} {
		e, err := parser.ParseExpr("struct{" + field + "}")
		require.NoError(t, err)
		require.Contains(t, strings.Join(problems(e.(*ast.StructType)), "\n"), want, field)
	}
	for _, field := range []string{
		"A uint64 `json:\"next_offset\"`", "A *float64 `json:\"last_contact_seconds\"`", "A float64 `json:\"calls_per_second\"`",
		"A map[string]float64 `json:\"latency_seconds\"`", "A bool `json:\"leader\"`", "A int64 `json:\"bytes\"`",
	} {
		e, err := parser.ParseExpr("struct{" + field + "}")
		require.NoError(t, err)
		require.Empty(t, problems(e.(*ast.StructType)), field)
	}
}
