package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// A setting with the tag reload:"yes" is taken from the files again on SIGHUP; any
// other takes a restart.

// Changed are the settings, by HCL path, in which next differs: those a running node
// takes, and those for which it has to be started again.
func (c *Node) Changed(next Node) (live, restart []string) {
	return changed(reflect.ValueOf(c).Elem(), reflect.ValueOf(next), "")
}

// Changed is what Node.Changed is, for a proxy.
func (c *Proxy) Changed(next Proxy) (live, restart []string) {
	return changed(reflect.ValueOf(c).Elem(), reflect.ValueOf(next), "")
}

// RestartError reports settings that a running process does not take.
type RestartError struct {
	Settings []string // by HCL path; at least one
}

func (e *RestartError) Error() string {
	return fmt.Sprintf("a restart is needed for %s: put it back, or restart", strings.Join(e.Settings, ", "))
}

func changed(was, is reflect.Value, path string) (live, restart []string) {
	for i := range was.NumField() {
		f := was.Type().Field(i)
		name, kind := tag(f)
		name = join(path, name)
		switch {
		case !f.IsExported() || kind == "":
		case kind == "block" && f.Type.Kind() == reflect.Struct:
			l, r := changed(was.Field(i), is.Field(i), name)
			live, restart = append(live, l...), append(restart, r...)
		case same(was.Field(i), is.Field(i)):
		case f.Tag.Get("reload") != "":
			live = append(live, name)
		default:
			restart = append(restart, name)
		}
	}
	slices.Sort(live)
	slices.Sort(restart)
	return live, restart
}

// same takes no list for an empty one.
func same(a, b reflect.Value) bool {
	if a.Kind() == reflect.Slice && a.Len() == 0 && b.Len() == 0 {
		return true
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}
