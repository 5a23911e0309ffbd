package adminpage_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/logd-io/logd/pkg/internal/adminpage"
	"github.com/logd-io/logd/pkg/internal/events"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const bound = 30 * time.Second // a machine that hangs, not a claim

const nasty = `<script>alert("x")</script>`

// view has the text everywhere that something from outside can get to.
func view(text string) *adminpage.View {
	return &adminpage.View{
		Program: "logproxy", Name: text, At: "12:00:00 UTC",
		Answers: []adminpage.Answer{{Question: "You can write", Text: text, Why: text, Tone: adminpage.Good}},
		Self:    adminpage.Place{Key: text, Name: text, Role: text, State: text},
		Places:  []adminpage.Place{{Key: text, Name: text, Role: text, State: text, Leader: true}},
		Tables: []adminpage.Table{{
			ID: "nodes", Caption: "Nodes", Empty: "None.", Columns: []adminpage.Column{{Name: "Node"}, {Name: "Lag", Numeric: true}},
			Rows: []adminpage.Row{{Key: text, Cells: []adminpage.Cell{{Text: text}, {Text: text, Tone: adminpage.Bad}}}},
		}},
		Facts: []adminpage.Fact{{Name: "Id", Value: text}},
	}
}

func serve(t *testing.T, conf adminpage.Config) (*adminpage.Page, *httptest.Server) {
	t.Helper()
	if conf.View == nil {
		conf.View = func() *adminpage.View { return view("n1") }
	}
	if conf.Status == nil {
		conf.Status = func() any { return map[string]string{"id": "p1"} }
	}
	if conf.Events == nil {
		conf.Events = events.New()
	}
	p, err := adminpage.New(conf)
	require.NoError(t, err)
	s := httptest.NewServer(p)
	t.Cleanup(s.Close)
	t.Cleanup(s.CloseClientConnections)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	return p, s
}

// answer is what get got.
type answer struct {
	StatusCode int
	Header     http.Header
}

func get(t *testing.T, url string, header ...string) (answer, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return answer{res.StatusCode, res.Header}, string(body)
}

// message is one server-sent event.
type message struct{ id, kind, data string }

// listen gives the events of a stream until the test ends or the stream does.
func listen(t *testing.T, url string, header ...string) <-chan message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	require.NoError(t, err)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req) //nolint:bodyclose // the goroutine below does
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, res.StatusCode)
	require.Equal(t, "text/event-stream; charset=utf-8", res.Header.Get("Content-Type"))
	ms := make(chan message)
	ended := make(chan struct{})
	t.Cleanup(func() { cancel(); <-ended })
	go func() { // ends with the response, which ends with ctx
		defer close(ended)
		defer close(ms)
		defer res.Body.Close()
		var m message
		for lines := bufio.NewScanner(res.Body); lines.Scan(); {
			key, value, _ := strings.Cut(lines.Text(), ": ")
			switch key {
			case "id":
				m.id = value
			case "event":
				m.kind = value
			case "data":
				m.data = value
			case "":
				if m.kind != "" {
					select {
					case ms <- m:
					case <-ctx.Done():
						return
					}
				}
				m = message{}
			}
		}
	}()
	return ms
}

// next is the next message of that kind.
func next(t *testing.T, ms <-chan message, kind string) message {
	t.Helper()
	for m := range ms {
		if m.kind == kind {
			return m
		}
	}
	t.Fatalf("the stream ended without %q", kind)
	return message{}
}

// What a node is called, or says, is text wherever it stands.
func TestWhatComesFromOutsideIsNeverMarkup(t *testing.T) {
	log := events.New()
	log.Addf("leader", events.Severity(`"><i>`), nasty, "%s", nasty)
	_, s := serve(t, adminpage.Config{View: func() *adminpage.View { return view(nasty) }, Events: log, NoTail: nasty})
	_, body := get(t, s.URL)
	require.NotContains(t, body, "<script>alert")
	require.NotContains(t, body, `"><i>`)
	require.GreaterOrEqual(t, strings.Count(body, "&lt;script&gt;alert"), 15)
}

// No request leaves the origin, and nothing runs that the policy would have to allow.
func TestPageIsItsOwn(t *testing.T) {
	_, s := serve(t, adminpage.Config{})
	res, body := get(t, s.URL)
	require.Equal(t, "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "+
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
		res.Header.Get("Content-Security-Policy"))
	require.Equal(t, "nosniff", res.Header.Get("X-Content-Type-Options"))
	require.Equal(t, "no-store", res.Header.Get("Cache-Control"))
	require.NotRegexp(t, `(?i)<style|\sstyle=|\son[a-z]+=|javascript:`, body)
	for _, tag := range regexp.MustCompile(`<script[^>]*>[^<]*`).FindAllString(body, -1) {
		require.Regexp(t, `src="assets/[a-z.]+"></?$|src="assets/[a-z.]+">$`, tag)
	}
	for _, m := range regexp.MustCompile(`(?:href|src)="([^"]*)"`).FindAllStringSubmatch(body, -1) {
		require.NotRegexp(t, `^(//|[a-z]+:|/)`, m[1], "it has to work below a path, and leave nothing")
	}
	for _, asset := range []struct{ name, kind string }{{"page.js", "text/javascript"}, {"page.css", "text/css"}, {"icon.svg", "image/svg+xml"}} {
		res, body := get(t, s.URL+"/assets/"+asset.name)
		require.Equal(t, http.StatusOK, res.StatusCode, asset.name)
		require.Contains(t, res.Header.Get("Content-Type"), asset.kind)
		require.Equal(t, "nosniff", res.Header.Get("X-Content-Type-Options"))
		require.NotRegexp(t, `https?://(?:[^w]|w[^w])`, body, asset.name) // but for a namespace
		require.NotRegexp(t, `innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|@import`, body, asset.name)
	}
	for _, path := range []string{"/assets/", "/assets", "/assets/../page.go", "/other", "/api/other"} {
		res, body := get(t, s.URL+path)
		require.Equal(t, http.StatusNotFound, res.StatusCode, path)
		require.NotContains(t, body, "page.css")
	}
	post, err := http.Post(s.URL, "text/plain", strings.NewReader("x"))
	require.NoError(t, err)
	require.NoError(t, post.Body.Close())
	require.Equal(t, http.StatusMethodNotAllowed, post.StatusCode)
}

func TestEventsCarryTheStatusAndResume(t *testing.T) {
	log := events.New()
	log.Addf("leader", events.Info, "n1", "one")
	log.Addf("found", events.Info, "n1", "two")
	_, s := serve(t, adminpage.Config{Events: log})

	ms := listen(t, s.URL+"/api/events")
	require.JSONEq(t, `{"id":"p1"}`, next(t, ms, "status").data)
	one, two := next(t, ms, "event"), next(t, ms, "event")
	var e events.Event
	require.NoError(t, json.Unmarshal([]byte(two.data), &e))
	require.Equal(t, "two", e.Text)
	require.Equal(t, fmt.Sprint(e.ID), two.id)
	log.Addf("ejected", events.Warning, "n1", "three")
	three := next(t, ms, "event")
	require.Contains(t, three.data, `"three"`)
	next(t, ms, "status")

	require.Contains(t, next(t, listen(t, s.URL+"/api/events", "Last-Event-ID", one.id), "event").data, `"two"`)
	require.Contains(t, next(t, listen(t, s.URL+"/api/events?after="+two.id), "event").data, `"three"`)
	var v adminpage.View
	require.NoError(t, json.Unmarshal([]byte(next(t, listen(t, s.URL+"/api/events?page=1"), "page").data), &v))
	require.Equal(t, view("n1"), &v)

	for i := range 300 { // each of a kind of its own
		log.Addf(fmt.Sprint("kind", i), events.Info, "", "more")
	}
	ms = listen(t, s.URL+"/api/events", "Last-Event-ID", one.id)
	require.JSONEq(t, `{"count":46}`, next(t, ms, "gone").data, "302 since, and 256 are kept")
	next(t, ms, "event")
}

func TestListenersAreBounded(t *testing.T) {
	_, s := serve(t, adminpage.Config{Tail: &adminpage.Tail{Bounds: func() (uint64, uint64) { return 0, 0 }}})
	for range 16 {
		next(t, listen(t, s.URL+"/api/events"), "status")
	}
	res, _ := get(t, s.URL+"/api/events")
	require.Equal(t, http.StatusServiceUnavailable, res.StatusCode)
	require.NotEmpty(t, res.Header.Get("Retry-After"))
	for range 4 {
		listen(t, s.URL+"/api/tail")
	}
	res, _ = get(t, s.URL+"/api/tail")
	require.Equal(t, http.StatusServiceUnavailable, res.StatusCode)
	res, _ = get(t, s.URL)
	require.Equal(t, http.StatusOK, res.StatusCode, "the page itself has no end to its places")
}

func TestALeftPlaceIsFree(t *testing.T) {
	_, s := serve(t, adminpage.Config{})
	for range 40 {
		ctx, cancel := context.WithCancel(t.Context())
		require.EventuallyWithT(t, func(t *assert.CollectT) {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/api/events", nil)
			require.NoError(t, err)
			res, err := http.DefaultClient.Do(req)
			require.NoError(t, err)
			require.NoError(t, res.Body.Close())
			require.Equal(t, http.StatusOK, res.StatusCode)
		}, bound, 10*time.Millisecond)
		cancel()
	}
}

// The admin server's limits are for requests that end.
func TestStreamsOutliveTheServersLimits(t *testing.T) {
	p, err := adminpage.New(adminpage.Config{
		Status: func() any { return 1 }, View: func() *adminpage.View { return view("x") }, Events: events.New(),
	})
	require.NoError(t, err)
	s := httptest.NewUnstartedServer(p)
	s.Config.ReadTimeout, s.Config.WriteTimeout = 300*time.Millisecond, 300*time.Millisecond
	s.Start()
	defer s.Close()
	ms := listen(t, s.URL+"/api/events")
	for range 3 { // two seconds
		next(t, ms, "status")
	}
	require.NoError(t, p.Close())
}

func TestCloseEndsStreams(t *testing.T) {
	p, s := serve(t, adminpage.Config{Tail: &adminpage.Tail{Bounds: func() (uint64, uint64) { return 0, 0 }}})
	ms, tail := listen(t, s.URL+"/api/events"), listen(t, s.URL+"/api/tail")
	next(t, ms, "status")
	require.NoError(t, p.Close())
	require.NoError(t, p.Close())
	next(t, ms, "end")
	next(t, tail, "end")
	_, open := <-ms
	require.False(t, open)
	res, _ := get(t, s.URL+"/api/events")
	require.Equal(t, http.StatusServiceUnavailable, res.StatusCode)
	res, _ = get(t, s.URL)
	require.Equal(t, http.StatusOK, res.StatusCode, "who draws up what is left may still look")
}

// Text has a contrast of at least 4.5 to 1 on both of what it stands on, in both
// palettes (WCAG 2.2, 1.4.3).
func TestContrast(t *testing.T) {
	css, err := os.ReadFile("assets/page.css")
	require.NoError(t, err)
	palettes := regexp.MustCompile(`(?s):root \{(.*?)\}`).FindAllStringSubmatch(string(css), -1)
	require.Len(t, palettes, 2, "light and dark")
	for _, p := range palettes {
		colours := map[string]float64{}
		for _, m := range regexp.MustCompile(`--([a-z]+): #([0-9a-f]{6})`).FindAllStringSubmatch(p[1], -1) {
			colours[m[1]] = luminance(t, m[2])
		}
		for _, on := range []string{"ground", "surface"} {
			for _, text := range []string{"text", "muted", "accent", "good", "warn", "bad"} {
				require.Contains(t, colours, text)
				light, dark := colours[text], colours[on]
				if light < dark {
					light, dark = dark, light
				}
				require.GreaterOrEqual(t, (light+.05)/(dark+.05), 4.5, "%s on %s in %s", text, on, p[1])
			}
		}
	}
}

// luminance is WCAG's relative luminance.
func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	n, err := strconv.ParseUint(hex, 16, 32)
	require.NoError(t, err)
	channel := func(c uint64) float64 {
		v := float64(c&0xff) / 255
		if v <= 0.04045 {
			return v / 12.92
		}
		return math.Pow((v+.055)/1.055, 2.4)
	}
	return .2126*channel(n>>16) + .7152*channel(n>>8) + .0722*channel(n)
}
