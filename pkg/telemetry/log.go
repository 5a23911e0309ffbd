package telemetry

import (
	"fmt"
	"io"

	hclog "github.com/hashicorp/go-hclog"
)

// LogOptions describe the root logger.
type LogOptions struct {
	Name   string    // "logd", "logproxy"
	Level  string    // trace, debug, info, warn, error, off
	Format string    // text or json
	Output io.Writer // nil: nowhere
}

// NewLogger makes the one root logger of a process; packages get it Named.
func NewLogger(o LogOptions) (*Logger, error) {
	level := hclog.LevelFromString(o.Level)
	if level == hclog.NoLevel {
		return nil, fmt.Errorf("log level %q: one of trace, debug, info, warn, error, off", o.Level)
	}
	if o.Format != "text" && o.Format != "json" {
		return nil, fmt.Errorf("log format %q: text or json", o.Format)
	}
	output := o.Output
	if output == nil {
		output = io.Discard
	}
	return newWatched(&hclog.LoggerOptions{
		Name:       o.Name,
		Level:      level,
		Output:     output,
		JSONFormat: o.Format == "json",
	}), nil
}
