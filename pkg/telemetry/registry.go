package telemetry

import (
	"runtime"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Build is which program this is.
type Build struct {
	Version  string `json:"version"`            // as released; "dev" when it was not
	Revision string `json:"revision,omitempty"` // of the source, "+dirty" when it had changes; empty: not known
	Go       string `json:"go"`
}

// ReadBuild completes a version with what the toolchain recorded in the binary.
func ReadBuild(version string) Build {
	b := Build{Version: version, Go: runtime.Version()}
	if b.Version == "" {
		b.Version = "dev"
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	dirty := false
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.modified":
			dirty = s.Value == "true"
		}
	}
	if dirty && b.Revision != "" {
		b.Revision += "+dirty"
	}
	return b
}

// String is what the version command prints after the program's name.
func (b Build) String() string {
	s := b.Version
	if b.Revision != "" {
		s += " (" + b.Revision + ")"
	}
	return s + " " + b.Go
}

// NewRegistry makes a process's registry, with the facts of the build and the
// collectors of the Go runtime and the process in it. program is the prefix of
// our own names: "logd" or "logproxy".
func NewRegistry(program string, b Build) *prometheus.Registry {
	reg := prometheus.NewRegistry()
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: program + "_build_info",
		Help: "Always 1; the labels tell which build is running.",
	}, []string{"version", "revision", "goversion"})
	build.WithLabelValues(b.Version, b.Revision, b.Go).Set(1)
	reg.MustRegister(build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return reg
}
