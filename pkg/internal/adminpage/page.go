package adminpage

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/logd-io/logd/pkg/internal/events"
)

//go:embed assets
var assets embed.FS

//go:embed page.html
var pageHTML string

// Bounds of what those who look may take.
const (
	streamsMost   = 16               // of events, at a time
	tailsMost     = 4                // of records, at a time
	writePatience = 10 * time.Second // a write that takes longer ends the stream
	eventsShown   = 50               // on the page, and told first to who names no event
)

// policy keeps the page from loading or running anything that is not its own, and its
// script from making markup out of text.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// Config is what a Page shows. Its functions must not block, but for Tail's Read.
type Config struct {
	View   func() *View
	Status func() any // is /api/status's; once a second in /api/events
	Events *events.Log
	Tail   *Tail        // nil: records are not shown
	NoTail string       // why they are not, for people
	Logger hclog.Logger // nil: quiet
}

// Page is the handler. It does not ask who it answers.
type Page struct {
	cfg      Config
	log      hclog.Logger
	template *template.Template
	mux      *http.ServeMux
	streams  chan struct{} // one place a stream of events
	tails    chan struct{} // and one a tail

	closeOnce sync.Once
	closed    chan struct{} // closed by Close: streams end
}

// New makes a Page.
func New(cfg Config) (*Page, error) {
	p := &Page{
		cfg: cfg, log: cfg.Logger, mux: http.NewServeMux(), closed: make(chan struct{}),
		streams: make(chan struct{}, streamsMost), tails: make(chan struct{}, tailsMost),
	}
	if p.log == nil {
		p.log = hclog.NewNullLogger()
	}
	var err error
	if p.template, err = template.New("page").Funcs(template.FuncMap{"clock": clock, "word": word}).Parse(pageHTML); err != nil {
		return nil, fmt.Errorf("admin page: %w", err)
	}
	files, err := fs.Sub(assets, "assets")
	if err != nil {
		return nil, fmt.Errorf("admin page: %w", err)
	}
	p.mux.HandleFunc("GET /{$}", p.page)
	p.mux.Handle("GET /assets/", http.StripPrefix("/assets/", noListing(http.FileServerFS(files))))
	p.mux.HandleFunc("GET /api/events", p.events)
	p.mux.HandleFunc("GET /api/tail", p.tail)
	return p, nil
}

// ServeHTTP implements http.Handler.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	p.mux.ServeHTTP(w, r)
}

// Close ends the streams, and refuses new ones. Whoever runs the server waits for them.
// Calling it again is harmless.
func (p *Page) Close() error {
	p.closeOnce.Do(func() { close(p.closed) })
	return nil
}

// noListing hides what a folder has.
func noListing(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "" || r.URL.Path[len(r.URL.Path)-1] == '/' {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Cache-Control", "no-cache")
		next.ServeHTTP(w, r)
	})
}

// shown is what the template gets.
type shown struct {
	*View
	Main   []Table        // the first of the View's
	More   []Table        // the others, further down
	Events []events.Event // newest first
	Last   uint64         // id of the newest; 0: none
	Tail   bool
	NoTail string
}

func (p *Page) page(w http.ResponseWriter, _ *http.Request) {
	s := shown{View: p.cfg.View(), Tail: p.cfg.Tail != nil, NoTail: p.cfg.NoTail}
	first := min(1, len(s.Tables))
	s.Main, s.More = s.Tables[:first], s.Tables[first:]
	for _, e := range p.cfg.Events.Last(eventsShown) {
		s.Events = append([]events.Event{e}, s.Events...)
		s.Last = e.ID
	}
	var body bytes.Buffer
	if err := p.template.Execute(&body, s); err != nil {
		p.log.Error("the page cannot be made", "err", err)
		http.Error(w, "the page cannot be made", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = body.WriteTo(w) // one who has gone is not our error
}

// clock is a time of day as the page shows it.
func clock(t time.Time) string { return t.UTC().Format("15:04:05") }

// word is what a severity is called on the page.
func word(s events.Severity) string {
	switch s {
	case events.Error:
		return "Error"
	case events.Warning:
		return "Warning"
	}
	return "Info"
}

// stream is one who listens.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

// enter makes r a stream, if there is a place for it.
func (p *Page) enter(w http.ResponseWriter, places chan struct{}) (*stream, func()) {
	select {
	case <-p.closed:
		http.Error(w, "stopping", http.StatusServiceUnavailable)
		return nil, nil
	default:
	}
	select {
	case places <- struct{}{}:
	default:
		w.Header().Set("Retry-After", "5")
		http.Error(w, fmt.Sprintf("%d are looking already", cap(places)), http.StatusServiceUnavailable)
		return nil, nil
	}
	s := &stream{w: w, control: http.NewResponseController(w)}
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	return s, func() { <-places }
}

// send writes and flushes, and reports whether anybody is there. The server's own limit
// is for requests that end; where it cannot be moved the stream ends with it, and the
// browser comes back.
func (s *stream) send(b []byte) bool {
	_ = s.control.SetWriteDeadline(time.Now().Add(writePatience))
	if _, err := s.w.Write(b); err != nil {
		return false
	}
	return s.control.Flush() == nil
}

// message is one server-sent event. JSON has no line breaks, so that it is one line.
func message(b []byte, kind string, id uint64, v any) ([]byte, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return b, err
	}
	if id > 0 {
		b = append(strconv.AppendUint(append(b, "id: "...), id, 10), '\n')
	}
	return fmt.Appendf(b, "event: %s\ndata: %s\n\n", kind, data), nil
}

// events answers /api/events, until the client goes or the process stops.
//
//	page=1   the page's view instead of the status
//	after=N  events above that id first; otherwise the newest few. A Last-Event-ID
//	         header counts more.
func (p *Page) events(w http.ResponseWriter, r *http.Request) {
	kind, look := "status", func() any { return p.cfg.Status() }
	if r.URL.Query().Get("page") != "" {
		kind, look = "page", func() any { return p.cfg.View() }
	}
	last, resumes := lastID(r)
	s, leave := p.enter(w, p.streams)
	if s == nil {
		return
	}
	defer leave()

	if !s.send([]byte("retry: 2000\n\n")) {
		return
	}
	if !resumes {
		if es := p.cfg.Events.Last(eventsShown); len(es) > 0 {
			last = es[0].ID - 1
		}
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	due := true // for a look
	for {
		grew := p.cfg.Events.Changes()
		b, err := []byte(nil), error(nil)
		if due {
			b, err = message(b, kind, 0, look())
		}
		es, gone := p.cfg.Events.Since(last)
		if gone > 0 && err == nil {
			b, err = message(b, "gone", 0, map[string]uint64{"count": gone})
		}
		for _, e := range es {
			if err == nil {
				b, err = message(b, "event", e.ID, e)
			}
			last = e.ID
		}
		if err != nil {
			p.log.Error("an event cannot be encoded", "err", err)
			return
		}
		if len(b) > 0 && !s.send(b) {
			return
		}
		due = false
		select {
		case <-grew:
		case <-tick.C:
			due = true
		case <-p.closed:
			s.send([]byte("event: end\ndata: {}\n\n"))
			return
		case <-r.Context().Done():
			return
		}
	}
}

// lastID is the last event that the client has.
func lastID(r *http.Request) (id uint64, ok bool) {
	for _, s := range []string{r.Header.Get("Last-Event-ID"), r.URL.Query().Get("after")} {
		if id, err := strconv.ParseUint(s, 10, 64); err == nil {
			return id, true
		}
	}
	return 0, false
}
