package config_test

import (
	"fmt"
	"go/ast"
	"go/doc/comment"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/config"
)

// referencePage is made of the structs: their comments are what operators read.
const referencePage = "../docs/ops/configuration.md"

const referenceHead = `# Every setting

This page is made of the programs' own structs: ` + "`go test ./config -run TestReference -update`" + `.

A configuration is HCL, or JSON with the same names. ` + "`-config`" + ` may be repeated and may name a
directory, of which ` + "`*.hcl` and `*.json`" + ` are read in lexical order; the later file wins. A flag beats
the environment, which beats files, which beat the defaults. Every setting has a variable:
` + "`ports.rpc` of a node is `LOGD_PORTS_RPC`, `listener.address` of a proxy is `LOGPROXY_LISTENER_ADDRESS`" + `;
lists are separated by commas. Durations are written "10s", sizes "64MiB".

Commands that ask a process have variables of their own, which are no settings: ` + "`LOGD_ADDR`" + ` for
` + "`-address`, `LOGD_CACERT`, `LOGD_CERT` and `LOGD_KEY`" + ` for the files of TLS, and for the ` + "`-admin`" + ` port
` + "`LOGD_ADMIN_ADDR`" + ` of a node and ` + "`LOGPROXY_ADMIN_ADDRESS`, its setting's own," + ` of a proxy.

**SIGHUP** has a process read its files again. It takes the settings marked ↻ and the files of
certificates and of the acl: all of it, or nothing when something does not load or a setting
without the mark has changed, which needs a restart. ` + "`logd reload` and `logproxy reload`" + ` do the same, and
answer what has changed, or why nothing has. The log says so too, and
` + "`logd_config_last_reload_successful` or `logproxy_config_last_reload_successful`" + `.

` + "`logd validate` and `logproxy validate`" + ` check files as ` + "`agent`" + ` would read them, and
the environment with them: what a file leaves to variables has to be set there too. They open the
certificates, keys and policies that it names, as ` + "`agent`" + ` would; with ` + "`-no-files`" + ` they do not, for where
these are not. Complete
examples are in [examples/hcl](../../examples/hcl).
`

func TestReference(t *testing.T) {
	docs := comments(t)
	node, proxy := config.DefaultNode(), config.DefaultProxy()
	proxy.Discovery = []config.Discovery{{}} // so that its settings are listed
	node.Register = []config.Register{{}}
	var b strings.Builder
	b.WriteString(referenceHead)
	describe(t, &b, docs, "logd", reflect.ValueOf(node))
	describe(t, &b, docs, "logproxy", reflect.ValueOf(proxy))
	if *update {
		require.NoError(t, os.WriteFile(referencePage, []byte(b.String()), 0o644))
	}
	page, err := os.ReadFile(referencePage)
	require.NoError(t, err)
	require.Equal(t, b.String(), string(page), "go test ./config -run TestReference -update writes it anew")
}

// comments are those of the package's structs ("Node") and their fields ("Node.Name").
func comments(t *testing.T) map[string]string {
	t.Helper()
	docs := map[string]string{}
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		require.NoError(t, err)
		for _, decl := range file.Decls {
			gen, ok := decl.(*ast.GenDecl)
			if !ok || gen.Tok != token.TYPE {
				continue
			}
			spec := gen.Specs[0].(*ast.TypeSpec)
			st, ok := spec.Type.(*ast.StructType)
			if !ok {
				continue
			}
			docs[spec.Name.Name] = line(gen.Doc)
			for _, f := range st.Fields.List {
				for _, n := range f.Names {
					docs[spec.Name.Name+"."+n.Name] = line(f.Doc)
				}
			}
		}
	}
	return docs
}

// line is a comment on one line.
func line(c *ast.CommentGroup) string {
	text := c.Text()
	var p comment.Parser
	return strings.Join(strings.Fields(string(new(comment.Printer).Text(p.Parse(text)))), " ")
}

// describe writes the settings of a program, then those of its blocks.
func describe(t *testing.T, b *strings.Builder, docs map[string]string, program string, v reflect.Value) {
	t.Helper()
	fmt.Fprintf(b, "\n## %s\n", program)
	table(t, b, docs, v)
	blocks(t, b, docs, v, "", "")
}

func blocks(t *testing.T, b *strings.Builder, docs map[string]string, v reflect.Value, open, end string) {
	t.Helper()
	for i := range v.NumField() {
		name, kind, _ := strings.Cut(v.Type().Field(i).Tag.Get("hcl"), ",")
		if kind != "block" {
			continue
		}
		inner, head := v.Field(i), open+name+" { "
		if inner.Kind() == reflect.Slice {
			inner, head = inner.Index(0), open+name+" \"…\" { "
		}
		if settings(inner) > 0 {
			fmt.Fprintf(b, "\n### `%s…%s }`\n\n%s\n", head, end, about(t, docs, inner.Type()))
			table(t, b, docs, inner)
		}
		blocks(t, b, docs, inner, head, end+" }")
	}
}

// about is what a block is for: its comment without the Go name it begins with.
func about(t *testing.T, docs map[string]string, typ reflect.Type) string {
	t.Helper()
	text := docs[typ.Name()]
	require.NotEmpty(t, text, "%s has no comment", typ.Name())
	for _, verb := range []string{" is ", " are ", " bounds ", " names "} {
		if rest, ok := strings.CutPrefix(text, typ.Name()+verb); ok {
			if verb == " is " || verb == " are " {
				return strings.ToUpper(rest[:1]) + rest[1:]
			}
			return strings.ToUpper(verb[1:2]) + verb[2:] + rest
		}
	}
	t.Errorf("the comment of %s does not begin with its name and a verb", typ.Name())
	return text
}

func settings(v reflect.Value) (n int) {
	for i := range v.NumField() {
		if tag := v.Type().Field(i).Tag.Get("hcl"); strings.HasSuffix(tag, ",optional") || strings.HasSuffix(tag, ",label") {
			n++
		}
	}
	return n
}

func table(t *testing.T, b *strings.Builder, docs map[string]string, v reflect.Value) {
	t.Helper()
	b.WriteString("\n| setting | default | |\n|---|---|---|\n")
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, kind, _ := strings.Cut(f.Tag.Get("hcl"), ",")
		if kind != "optional" && kind != "label" {
			continue
		}
		text := docs[v.Type().Name()+"."+f.Name]
		require.True(t, strings.HasSuffix(text, "."), "the comment of %s.%s is no sentence: operators read it", v.Type().Name(), f.Name)
		show := "`" + name + "`"
		if kind == "label" {
			show = "the label"
		}
		if f.Tag.Get("reload") != "" {
			show += " ↻"
		}
		fmt.Fprintf(b, "| %s | %s | %s |\n", show, written(v.Field(i)), strings.NewReplacer("|", "\\|", "<", "&lt;").Replace(text))
	}
}

// written is a default as it would stand in a file; nothing for a zero that says so.
func written(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case time.Duration:
		text := x.String()
		if strings.HasSuffix(text, "m0s") {
			text = strings.TrimSuffix(text, "0s")
		}
		if strings.HasSuffix(text, "h0m") {
			text = strings.TrimSuffix(text, "0m")
		}
		return "`\"" + text + "\"`"
	case config.Size:
		if x == 0 {
			return "`0`"
		}
		return "`\"" + x.String() + "\"`"
	case string:
		if x == "" {
			return ""
		}
		return "`\"" + x + "\"`"
	case []string:
		return ""
	case *bool:
		if x == nil {
			return ""
		}
		return fmt.Sprintf("`%v`", *x)
	}
	return fmt.Sprintf("`%v`", v.Interface())
}
