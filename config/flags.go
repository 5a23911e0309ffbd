package config

import (
	"flag"
	"strings"
)

// Bind adds -config, repeatable, and a flag for each of the settings, given as
// HCL path and usage; data_dir becomes -data-dir. A repeated flag of a list
// appends. What the flags say ends up in f.
func (f *From) Bind(fs *flag.FlagSet, settings map[string]string) {
	fs.Func("config", "`path` of a file or directory of *.hcl and *.json; repeatable, later wins", func(path string) error {
		f.Paths = append(f.Paths, path)
		return nil
	})
	for path, usage := range settings {
		fs.Func(flagName(path), usage, func(value string) error {
			if f.Flags == nil {
				f.Flags = map[string]string{}
			}
			if before, ok := f.Flags[path]; ok && before != "" {
				value = before + "," + value // a plain setting says then that it is no such value
			}
			f.Flags[path] = value
			return nil
		})
	}
}

// flagName is the flag of a setting.
func flagName(path string) string {
	return strings.NewReplacer(".", "-", "_", "-").Replace(path)
}
