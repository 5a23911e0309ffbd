package telemetry

import (
	"bytes"
	"encoding"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	hclog "github.com/hashicorp/go-hclog"
)

// What a watcher of the log may hold up, and for how long.
const (
	monitorLines   = 512              // lines that wait for it
	monitorBytes   = 1 << 20          // of them
	monitorMost    = 8                // watchers at a time
	monitorWrite   = 10 * time.Second // a write that takes longer ends it
	monitorPulse   = 15 * time.Second // an empty line so often, so that one who has gone is noticed
	monitorNameMax = 256
)

// Logger is a root logger whose lines can be watched while it runs, at levels of the
// watchers' own.
type Logger struct {
	hclog.InterceptLogger
	watch *watch
}

// watch is what a Logger and all those named after it share.
type watch struct {
	root hclog.InterceptLogger
	json bool

	level atomic.Int32 // the most that any watcher sees; hclog.Off: there is none

	mu       sync.Mutex
	watchers map[*watcher]struct{} // guarded by mu
}

func newWatched(o *hclog.LoggerOptions) *Logger {
	root := hclog.NewInterceptLogger(o)
	w := &watch{root: root, json: o.JSONFormat, watchers: map[*watcher]struct{}{}}
	w.level.Store(int32(hclog.Off))
	return &Logger{root, w}
}

// sees says whether a watcher sees lines of that level.
func (w *watch) sees(level hclog.Level) bool { return int32(level) >= w.level.Load() }

// IsTrace and those like it ask whether anybody sees such lines: the log itself or
// somebody who watches it.
func (l *Logger) IsTrace() bool { return l.InterceptLogger.IsTrace() || l.watch.sees(hclog.Trace) }
func (l *Logger) IsDebug() bool { return l.InterceptLogger.IsDebug() || l.watch.sees(hclog.Debug) }
func (l *Logger) IsInfo() bool  { return l.InterceptLogger.IsInfo() || l.watch.sees(hclog.Info) }
func (l *Logger) IsWarn() bool  { return l.InterceptLogger.IsWarn() || l.watch.sees(hclog.Warn) }
func (l *Logger) IsError() bool { return l.InterceptLogger.IsError() || l.watch.sees(hclog.Error) }

// Trace and those like it are hclog's, but that a value with a name of its own is written
// by it in JSON, too, and not as what it is made of: raft logs whole nodes.
func (l *Logger) Trace(msg string, args ...any) {
	if l.IsTrace() {
		l.InterceptLogger.Trace(msg, l.spelled(args)...)
	}
}

func (l *Logger) Debug(msg string, args ...any) {
	if l.IsDebug() {
		l.InterceptLogger.Debug(msg, l.spelled(args)...)
	}
}

func (l *Logger) Info(msg string, args ...any) {
	if l.IsInfo() {
		l.InterceptLogger.Info(msg, l.spelled(args)...)
	}
}

func (l *Logger) Warn(msg string, args ...any) {
	if l.IsWarn() {
		l.InterceptLogger.Warn(msg, l.spelled(args)...)
	}
}

func (l *Logger) Error(msg string, args ...any) {
	if l.IsError() {
		l.InterceptLogger.Error(msg, l.spelled(args)...)
	}
}

func (l *Logger) Log(level hclog.Level, msg string, args ...any) {
	l.InterceptLogger.Log(level, msg, l.spelled(args)...)
}

// spelled is args as JSON is to have them.
func (l *Logger) spelled(args []any) []any {
	if !l.watch.json {
		return args
	}
	copied := false
	for i, arg := range args {
		if _, itself := arg.(encoding.TextMarshaler); itself {
			continue
		}
		if _, named := arg.(fmt.Stringer); !named {
			continue
		}
		if !copied {
			args, copied = slices.Clone(args), true
		}
		args[i] = fmt.Sprint(arg) // which bears a nil
	}
	return args
}

// Named and those like it are hclog's, and can be watched too.
func (l *Logger) Named(name string) hclog.Logger { return l.sub(l.InterceptLogger.Named(name)) }
func (l *Logger) ResetNamed(name string) hclog.Logger {
	return l.sub(l.InterceptLogger.ResetNamed(name))
}
func (l *Logger) With(args ...any) hclog.Logger {
	return l.sub(l.InterceptLogger.With(l.spelled(args)...))
}
func (l *Logger) NamedIntercept(name string) hclog.InterceptLogger {
	return &Logger{l.InterceptLogger.NamedIntercept(name), l.watch}
}
func (l *Logger) ResetNamedIntercept(name string) hclog.InterceptLogger {
	return &Logger{l.InterceptLogger.ResetNamedIntercept(name), l.watch}
}

func (l *Logger) sub(named hclog.Logger) hclog.Logger {
	if i, ok := named.(hclog.InterceptLogger); ok {
		return &Logger{i, l.watch}
	}
	return named
}

// watcher is one who watches. Whoever logs never waits for it: what there is no room
// for is dropped and counted.
type watcher struct {
	level hclog.Level
	name  string            // only loggers of that name and below it; empty: all
	out   hclog.SinkAdapter // formats into the watcher's own Write

	mu      sync.Mutex
	lines   [][]byte // guarded by mu, and so are those below
	bytes   int
	dropped uint64
	news    chan struct{} // room for one: there are lines
}

// Write takes a line from the formatter.
func (w *watcher) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.lines) >= monitorLines || w.bytes+len(line) > monitorBytes {
		w.dropped++
		return len(line), nil
	}
	w.lines = append(w.lines, bytes.Clone(line))
	w.bytes += len(line)
	select {
	case w.news <- struct{}{}:
	default:
	}
	return len(line), nil
}

// Accept implements hclog.SinkAdapter.
func (w *watcher) Accept(name string, level hclog.Level, msg string, args ...any) {
	if level < w.level || w.name != "" && !under(name, w.name) {
		return
	}
	w.out.Accept(name, level, msg, args...)
}

// under says whether the logger is named part, or below it: the program's own name
// may be left out.
func under(name, part string) bool {
	for {
		if name == part || strings.HasPrefix(name, part+".") {
			return true
		}
		_, rest, ok := strings.Cut(name, ".")
		if !ok {
			return false
		}
		name = rest
	}
}

// taken is what waits, and how much there was no room for since the last time.
func (w *watcher) taken() (lines [][]byte, dropped uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	lines, dropped = w.lines, w.dropped
	w.lines, w.bytes, w.dropped = nil, 0, 0
	return lines, dropped
}

func (w *watch) add(level hclog.Level, name string, json bool) (*watcher, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.watchers) >= monitorMost {
		return nil, fmt.Errorf("%d watch the log already", monitorMost)
	}
	one := &watcher{level: level, name: name, news: make(chan struct{}, 1)}
	one.out = hclog.NewSinkAdapter(&hclog.LoggerOptions{Level: level, Output: one, JSONFormat: json})
	w.watchers[one] = struct{}{}
	w.look()
	w.root.RegisterSink(one)
	return one, nil
}

func (w *watch) remove(one *watcher) {
	w.root.DeregisterSink(one)
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.watchers, one)
	w.look()
}

// look notes the most that anybody sees. mu is held.
func (w *watch) look() {
	most := hclog.Off
	for one := range w.watchers {
		most = min(most, one.level)
	}
	w.level.Store(int32(most))
}

// monitor answers GET /api/monitor: the process's log from now on, a line a line,
// until the client goes or the server stops.
//
//	log_level  trace, debug, info (the default), warn or error, whatever the process's own is
//	format     text or json; as the process's own if empty
//	name       only of the logger with that name, and those below it
func (a *Admin) monitor(l *Logger) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		level, format, name := hclog.Info, q.Get("format"), q.Get("name")
		if s := q.Get("log_level"); s != "" {
			level = hclog.LevelFromString(s)
		}
		switch {
		case level == hclog.NoLevel || level == hclog.Off:
			plain(rw, http.StatusBadRequest, "log_level: one of trace, debug, info, warn, error")
			return
		case !slices.Contains([]string{"", "text", "json"}, format):
			plain(rw, http.StatusBadRequest, "format: text or json")
			return
		case len(name) > monitorNameMax:
			plain(rw, http.StatusBadRequest, "name: too long")
			return
		}
		one, err := l.watch.add(level, name, format == "json" || format == "" && l.watch.json)
		if err != nil {
			plain(rw, http.StatusServiceUnavailable, err.Error())
			return
		}
		defer l.watch.remove(one)
		rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
		rw.Header().Set("X-Content-Type-Options", "nosniff")
		rw.WriteHeader(http.StatusOK)
		a.follow(rw, r, one)
	}
}

// follow writes what one sees until there is an end.
func (a *Admin) follow(rw http.ResponseWriter, r *http.Request, one *watcher) {
	control := http.NewResponseController(rw)
	_ = control.SetReadDeadline(time.Time{}) // else the server takes the request for ended
	write := func(b []byte) bool {
		_ = control.SetWriteDeadline(time.Now().Add(monitorWrite))
		if _, err := rw.Write(b); err != nil {
			return false
		}
		return control.Flush() == nil
	}
	flush := func() bool {
		lines, dropped := one.taken()
		out := bytes.Join(lines, nil)
		if dropped > 0 {
			out = fmt.Appendf(out, "# %d lines were dropped here: they came faster than they were read\n", dropped)
		}
		return len(out) == 0 || write(out)
	}
	pulse := time.NewTicker(monitorPulse)
	defer pulse.Stop()
	if control.Flush() != nil {
		return
	}
	for {
		select {
		case <-one.news:
			if !flush() {
				return
			}
		case <-pulse.C:
			if !write([]byte("\n")) {
				return
			}
		case <-a.stopping:
			if flush() {
				_, _ = io.WriteString(rw, "# the process has stopped\n") // nobody is told if it does not get there
			}
			return
		case <-r.Context().Done():
			return
		}
	}
}
