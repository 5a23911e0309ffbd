package browser_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/devcluster"
)

var update = flag.Bool("update", false, "write the pictures of docs/images")

const bound = 2 * time.Minute // a machine that hangs, not a claim

// pictureMost is how large a picture of the documents may be.
const pictureMost = 150 << 10

// step is something done in a tab.
type step = chromedp.Action[chromedp.Void]

// command is a command of the browser's protocol as a step.
func command[P, R any](cmd cdp.Command[P, R], params P) step {
	return func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, t, cmd, params)
		return chromedp.Void{}, err
	}
}

func size(width, height int64, mobile bool) step {
	return command(emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: width, Height: height, DeviceScaleFactor: 1, Mobile: mobile,
	})
}

// tab is a browser's tab, and what went wrong in it.
type tab struct {
	context.Context //nolint:containedctx // chromedp's actions go by it
	t               *testing.T

	mu       sync.Mutex
	problems []string // said on the console, or asked of another origin; guarded by mu
	asked    int      // requests; guarded by mu
}

// browser is a headless Chromium; the test is skipped where there is none.
func browser(t *testing.T) context.Context {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		t.Skip("there is no chromium: apt-get install chromium")
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()), chromedp.WSURLReadTimeout(bound),
		chromedp.Flag("force-color-profile", "srgb"), chromedp.Flag("disable-component-update", true),
	)
	if os.Geteuid() == 0 {
		opts = append(opts, chromedp.NoSandbox)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*bound)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, opts...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	require.NoError(t, chromedp.Do(ctx)) // starts it
	return ctx
}

// open is a new tab at url, with do done before it.
func open(t *testing.T, b context.Context, url string, do ...step) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(b)
	t.Cleanup(cancel)
	tb := &tab{Context: ctx, t: t}
	require.NoError(t, chromedp.Do(ctx)) // starts it
	require.NoError(t, chromedp.Listen(ctx, func(ev any) {
		switch ev := ev.(type) {
		case *network.EventRequestWillBeSent:
			tb.mu.Lock()
			tb.asked++
			tb.mu.Unlock()
			if !strings.HasPrefix(ev.Request.URL, url) {
				tb.problem("a request to " + ev.Request.URL)
			}
		case *runtime.EventExceptionThrown:
			tb.problem(fmt.Sprintf("exception: %+v", ev.ExceptionDetails))
		case *runtime.EventConsoleAPICalled:
			tb.problem(fmt.Sprintf("console.%s: %v", ev.Type, ev.Args))
		case *cdplog.EventEntryAdded:
			tb.problem(fmt.Sprintf("%s: %s %s", ev.Entry.Level, ev.Entry.Text, ev.Entry.URL))
		}
	}))
	tb.run(append(append([]step{
		command(network.Enable, network.EnableParams{}), command(runtime.Enable, cdp.Empty{}), command(cdplog.Enable, cdp.Empty{}),
	}, do...), chromedp.Navigate(url))...)
	return tb
}

func (tb *tab) problem(what string) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	tb.problems = append(tb.problems, what)
}

// clean requires that nothing has gone wrong so far.
func (tb *tab) clean() {
	tb.t.Helper()
	tb.mu.Lock()
	defer tb.mu.Unlock()
	require.Empty(tb.t, tb.problems)
	require.NotZero(tb.t, tb.asked)
}

func (tb *tab) run(steps ...step) {
	tb.t.Helper()
	ctx, cancel := context.WithTimeout(tb, bound)
	defer cancel()
	require.NoError(tb.t, chromedp.Do(ctx, steps...))
}

// eval is the value of a JavaScript expression.
func eval[T any](tb *tab, js string) T {
	tb.t.Helper()
	ctx, cancel := context.WithTimeout(tb, bound)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](js))
	require.NoError(tb.t, err)
	return v
}

// until waits for a JavaScript condition.
func (tb *tab) until(what, js string) {
	tb.t.Helper()
	ctx, cancel := context.WithTimeout(tb, bound)
	defer cancel()
	_, err := chromedp.Run(ctx, chromedp.Poll[bool](js, chromedp.WithPollingInterval(50*time.Millisecond), chromedp.WithPollingTimeout(bound)))
	if err != nil {
		require.NoError(tb.t, err, "%s: %s", what, eval[string](tb, `document.body.innerText`))
	}
}

const (
	// answer is what a question of the page has as its answer.
	answer = `((q) => [...document.querySelectorAll('#answers > div')].find((d) => d.querySelector('dt').textContent === q)?.querySelector('.text').textContent)`
	// cell is the text of a node's cell by its column.
	cell = `((node, column) => {
		const at = [...document.querySelectorAll('#nodes thead th')].findIndex((h) => h.textContent === column);
		const row = [...document.querySelectorAll('#nodes tbody tr')].find((r) => r.children[0].textContent.startsWith(node + '.'));
		return row?.children[at].textContent;
	})`
	load = `((what) => [...document.querySelectorAll('#load tbody tr')].find((r) => r.children[0].textContent.startsWith(what))?.children[2].textContent)`
)

// start is a cluster with a leader, and a client of its proxy.
func start(t *testing.T) (*devcluster.Cluster, logv1.LogClient) {
	t.Helper()
	c, err := devcluster.Start(devcluster.Options{AnyPort: true, Heartbeat: time.Second, Version: "v1.0.0"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	cc, err := grpc.NewClient(c.Proxy(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { _ = cc.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	client := logv1.NewLogClient(cc)
	_, err = client.Produce(ctx, &logv1.ProduceRequest{Record: &logv1.Record{Value: []byte("the first")}}, grpc.WaitForReady(true))
	require.NoError(t, err, "there is a leader")
	return c, client
}

// traffic produces and consumes until the test ends.
func traffic(t *testing.T, client logv1.LogClient) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	for i := range 4 {
		wg.Go(func() {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for n := 0; ctx.Err() == nil; n++ {
				res, err := client.Produce(ctx, &logv1.ProduceRequest{Record: &logv1.Record{
					Key: fmt.Appendf(nil, "sensor-%d", i), Value: fmt.Appendf(nil, `{"reading":%d,"celsius":%.1f}`, n, 18+float64(n%40)/10),
				}})
				if err == nil {
					_, err = client.Consume(ctx, &logv1.ConsumeRequest{Offset: res.GetOffset()})
				}
				if err != nil && ctx.Err() == nil {
					t.Errorf("a client met an error: %v", err)
					return
				}
				select {
				case <-tick.C:
				case <-ctx.Done():
				}
			}
		})
	}
}

// A person looks at the page while the leader dies, and comes back.
func TestSystemPageShowsALeaderDie(t *testing.T) {
	b := browser(t)
	c, client := start(t)
	url := "http://" + c.ProxyAdmin() + "/"
	tb := open(t, b, url, size(1200, 900, false))

	tb.until("live", `document.getElementById('link').textContent.startsWith('Live')`)
	leader := c.Leader()
	require.NotNil(t, leader)
	tb.until("the leader", fmt.Sprintf(`%s('Leader') === %q`, answer, leader.Name))
	tb.until("writes", answer+`('You can write') === 'Yes' && `+answer+`('You can read') === 'Yes'`)

	// A record that would be markup arrives in the tail, as text.
	const nasty = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>`
	_, err := client.Produce(t.Context(), &logv1.ProduceRequest{Record: &logv1.Record{Key: []byte(nasty), Value: []byte(nasty)}})
	require.NoError(t, err)
	tb.until("the record", fmt.Sprintf(`[...document.querySelectorAll('#tail .value')].some((v) => v.textContent === %q)`, nasty+": "+nasty))
	require.Zero(t, eval[int](tb, `document.querySelectorAll('#tail img, #tail script').length`))
	require.NotEqual(t, "owned", eval[string](tb, `document.title`))

	traffic(t, client)
	tb.until("a rate of the log", load+`('Records appended') !== '0'`)
	tb.until("rates and durations of the leader", fmt.Sprintf(`Number(%[1]s(%[2]q, 'Calls/s')) > 0 && / m?s$/.test(%[1]s(%[2]q, 'p50')) && / m?s$/.test(%[1]s(%[2]q, 'p99'))`, cell, leader.Name))
	tb.until("more of the tail", `document.querySelectorAll('#tail .offset').length > 10`)
	tb.until("certificates", fmt.Sprintf(`/ days$/.test(%s(%q, 'Certificate'))`, cell, leader.Name))

	// One that follows late is shown to be behind, by more than what comes between two words
	// of where everybody is.
	var late *devcluster.Node
	for _, n := range c.Nodes() {
		if n != leader {
			late = n
		}
	}
	late.Lag(700 * time.Millisecond)
	tb.until("a lag", fmt.Sprintf(`Number(%s(%q, 'Lag')) > 40`, cell, late.Name))
	late.Lag(0)
	tb.until("no lag", fmt.Sprintf(`Number(%s(%q, 'Lag')) <= 40`, cell, late.Name))

	require.NoError(t, leader.Kill())
	tb.until("another leader", fmt.Sprintf(`%s('Leader') !== %q && %s('You can write') === 'Yes'`, answer, leader.Name, answer))
	next := eval[string](tb, answer+`('Leader')`)
	tb.until("the hold", `[...document.querySelectorAll('#events .what')].some((e) => /^held \d+ produces? for /.test(e.textContent))`)
	tb.until("the new leader among the events", fmt.Sprintf(`[...document.querySelectorAll('#events .what')].some((e) => new RegExp('^%s\\..* leads \\(term ').test(e.textContent))`, next))
	tb.until("that the old one is gone", fmt.Sprintf(`%s(%q, 'State') === 'cannot be reached'`, cell, leader.Name))
	require.NoError(t, leader.Revive())
	tb.until("that it is back", fmt.Sprintf(`%s(%q, 'State') === 'ok'`, cell, leader.Name))
	tb.clean()

	// Paused, it stays as it is; let go, it goes on.
	tb.run(chromedp.Click(chromedp.CSS("#pause")))
	require.Equal(t, "true", eval[string](tb, `document.getElementById('pause').getAttribute('aria-pressed')`))
	require.Regexp(t, `^Paused at `, eval[string](tb, `document.getElementById('link').textContent`))
	tb.run(chromedp.Click(chromedp.CSS("#pause")))
	tb.until("live again", `document.getElementById('link').textContent.startsWith('Live')`)
	seen := eval[[]string](tb, `[...document.querySelectorAll('#events li')].map((l) => l.dataset.key)`)
	unique := map[string]bool{}
	for _, id := range seen {
		require.False(t, unique[id], "event %s is there twice", id)
		unique[id] = true
	}
	tb.clean()

	if *update {
		picture(t, open(t, b, url), "light", "admin-page-light.png")
		picture(t, open(t, b, url), "dark", "admin-page-dark.png")
	}
}

// picture takes one of the whole page as it is with traffic.
func picture(t *testing.T, tb *tab, scheme, name string) {
	t.Helper()
	tb.run(
		command(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		}),
		size(1100, 1250, false),
	)
	tb.until("a leader, rates and a full tail", fmt.Sprintf(`%[1]s('You can write') === 'Yes' && document.querySelectorAll('#tail .offset').length > 20 &&
		Number(%[2]s(%[1]s('Leader'), 'Calls/s')) > 0 && / m?s$/.test(%[2]s(%[1]s('Leader'), 'p99'))`, answer, cell))
	ctx, cancel := context.WithTimeout(tb, bound)
	defer cancel()
	shot, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	require.NoError(t, err)
	shot, err = squeeze(shot)
	require.NoError(t, err)
	dir := filepath.Join("..", "..", "docs", "images")
	require.NoError(t, os.MkdirAll(dir, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, name), shot, 0o644))
	require.Less(t, len(shot), pictureMost)
}

// squeeze makes a picture small: the page has few colours, and none that blend.
func squeeze(shot []byte) ([]byte, error) {
	img, err := png.Decode(bytes.NewReader(shot))
	if err != nil {
		return nil, err
	}
	seen := map[color.Color]int{}
	b := img.Bounds()
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			seen[img.At(x, y)]++
		}
	}
	palette := slices.SortedFunc(maps.Keys(seen), func(c, d color.Color) int { return seen[d] - seen[c] })
	few := image.NewPaletted(b, palette[:min(64, len(palette))])
	draw.Draw(few, b, img, b.Min, draw.Src)
	var out bytes.Buffer
	err = (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, few)
	return out.Bytes(), err
}

// Whoever has no mouse, or no screen, gets everywhere, and everything has a name.
func TestSystemPageIsAccessible(t *testing.T) {
	b := browser(t)
	c, _ := start(t)
	for _, url := range []string{"http://" + c.ProxyAdmin() + "/", "http://" + c.Nodes()[0].Agent().AdminAddr() + "/"} {
		tb := open(t, b, url)
		tb.until("live", `document.getElementById('link').textContent.startsWith('Live')`)

		ctx, cancel := context.WithTimeout(tb, bound)
		tree, err := chromedp.Call(ctx, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
		cancel()
		require.NoError(t, err)
		roles := map[string]int{}
		for _, n := range tree.Nodes {
			if n.Ignored || n.Role == nil {
				continue
			}
			role, name := text(n.Role), text(n.Name)
			roles[role]++
			switch role {
			case "button", "link", "table", "region", "heading", "rowheader", "columnheader", "RootWebArea":
				require.NotEmpty(t, name, "a %s without a name at %s", role, url)
			}
		}
		for role, want := range map[string]int{"main": 1, "banner": 1, "contentinfo": 1, "button": 1, "status": 1} {
			require.Equal(t, want, roles[role], "%s at %s: %v", role, url, roles)
		}
		require.GreaterOrEqual(t, roles["table"], 1)
		require.GreaterOrEqual(t, roles["rowheader"], 1)
		require.Equal(t, "en", eval[string](tb, `document.documentElement.lang`))
		require.Equal(t, []string{"H1"}, eval[[]string](tb, `[...document.querySelectorAll('h1')].map((h) => h.tagName)`))
		require.Empty(t, eval[[]string](tb, `[...document.querySelectorAll('[id]')].map((e) => e.id).filter((id, i, all) => all.indexOf(id) !== i)`), "ids twice")
		require.Empty(t, eval[[]string](tb, `[...document.querySelectorAll('[tabindex]')].filter((e) => e.tabIndex > 0).map((e) => e.id)`), "no order of its own")

		// By keyboard: the way past the top first, then in the order of the page, and
		// where one is can be seen.
		var order []string
		for range 40 {
			tb.run(chromedp.KeyEvent(kb.Tab))
			at := eval[string](tb, `(() => {
				const e = document.activeElement;
				if (e === document.body) return '';
				const s = getComputedStyle(e);
				if (s.outlineStyle === 'none' || parseFloat(s.outlineWidth) < 2) return 'invisible ' + e.outerHTML.slice(0, 80);
				return e.id || e.className || e.textContent;
			})()`)
			if at == "" || len(order) > 0 && at == order[0] {
				break
			}
			require.NotContains(t, at, "invisible", url)
			order = append(order, at)
		}
		require.GreaterOrEqual(t, len(order), 5, "%v", order)
		require.Equal(t, []string{"skip", "pause", "scroll"}, order[:3], "%v", order)
		require.Equal(t, []string{"status", "metrics", "readiness"}, order[len(order)-3:], "%v", order)
		tb.run(chromedp.Focus(chromedp.CSS(".skip")), chromedp.KeyEvent(kb.Enter))
		require.Equal(t, "main", eval[string](tb, `document.activeElement.id`), "the skip link")

		// On a phone nothing has to be scrolled sideways but tables (WCAG 2.2, 1.4.10).
		tb.run(size(320, 640, true))
		require.LessOrEqual(t, eval[int](tb, `document.documentElement.scrollWidth`), 320, url)
		tb.clean()
	}
}

// Without JavaScript the page is all there, as of when it was asked for.
func TestSystemPageWithoutJavaScript(t *testing.T) {
	b := browser(t)
	c, _ := start(t)
	tb := open(t, b, "http://"+c.ProxyAdmin()+"/",
		command(emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}))
	ctx, cancel := context.WithTimeout(tb, bound)
	defer cancel()
	body, err := chromedp.Run(ctx, chromedp.Text(chromedp.CSS("body")))
	require.NoError(t, err)
	require.Regexp(t, `(?s)You can write\s+Yes`, body)
	require.Regexp(t, `(?s)Leader\s+`+regexp.QuoteMeta(c.Leader().Name)+`\s+term \d+`, body)
	require.Contains(t, body, "Load it again")
	require.Contains(t, body, "leads (term")
	require.NotContains(t, body, "Pause")
	tb.clean()
}

// A page whose process has gone says so.
func TestSystemPageSaysWhenTheProcessHasGone(t *testing.T) {
	b := browser(t)
	c, _ := start(t)
	tb := open(t, b, "http://"+c.ProxyAdmin()+"/")
	tb.until("live", `document.getElementById('link').textContent.startsWith('Live')`)
	tb.clean()
	require.NoError(t, c.Close())
	tb.until("that it is not connected", `document.getElementById('link').textContent.startsWith('Not connected')`)
}

func text(v *accessibility.Value) string {
	if v == nil {
		return ""
	}
	return strings.Trim(string(v.Value), `"`)
}
