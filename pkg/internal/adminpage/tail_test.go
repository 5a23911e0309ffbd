package adminpage_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/internal/adminpage"
)

type shown struct {
	Offset  uint64
	Time    time.Time
	Key     *content
	Value   content
	Headers int
	Count   uint64
	Text    string
}

type content struct {
	Text   string
	Base64 bool
	Bytes  int
	Cut    bool
}

func decode(t *testing.T, m message) (s shown) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(m.data), &s))
	return s
}

func TestTailBeginsWithTheNewestAndFollows(t *testing.T) {
	var end atomic.Uint64
	end.Store(15)
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	_, s := serve(t, adminpage.Config{Tail: &adminpage.Tail{
		Bounds: func() (uint64, uint64) { return 0, end.Load() },
		Read: func(_ context.Context, o uint64) (adminpage.Record, error) {
			return adminpage.Record{Offset: o, Time: at, Key: []byte("k"), Value: []byte(nasty), Headers: 2}, nil
		},
	}})
	ms := listen(t, s.URL+"/api/tail")
	for o := uint64(5); o < 15; o++ {
		r := decode(t, next(t, ms, "record"))
		require.Equal(t, o, r.Offset)
		require.Equal(t, nasty, r.Value.Text, "JSON carries it; the script makes it text")
		require.Equal(t, "k", r.Key.Text)
		require.Equal(t, 2, r.Headers)
		require.Equal(t, at, r.Time)
	}
	end.Store(16)
	require.EqualValues(t, 15, decode(t, next(t, ms, "record")).Offset)
}

func TestValuesAreTextOrBase64AndCut(t *testing.T) {
	long := strings.Repeat("é", 600) // 1,200 bytes; the first KiB ends between letters
	odd := "x" + long                // and here in the middle of one
	values := []string{"plain\ntext\t", "\xff\x00", "bell\a", long, odd, strings.Repeat("\x01", 2000), ""}
	_, s := serve(t, adminpage.Config{Tail: &adminpage.Tail{
		Bounds: func() (uint64, uint64) { return 0, uint64(len(values)) },
		Read: func(_ context.Context, o uint64) (adminpage.Record, error) {
			return adminpage.Record{Offset: o, Value: []byte(values[o])}, nil
		},
	}})
	ms := listen(t, s.URL+"/api/tail")
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	for i, want := range []content{
		{Text: "plain\ntext\t", Bytes: 11},
		{Text: b64("\xff\x00"), Base64: true, Bytes: 2},
		{Text: b64("bell\a"), Base64: true, Bytes: 5},
		{Text: strings.Repeat("é", 512), Bytes: 1200, Cut: true},
		{Text: "x" + strings.Repeat("é", 511), Bytes: 1201, Cut: true},
		{Text: b64(strings.Repeat("\x01", 1024)), Base64: true, Bytes: 2000, Cut: true},
		{},
	} {
		require.Equal(t, want, decode(t, next(t, ms, "record")).Value, i)
	}
}

// However fast records come, a listener costs twenty reads a second, and what it was
// not shown is counted.
func TestTailIsPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var reads atomic.Int64
		p, err := adminpage.New(adminpage.Config{Tail: &adminpage.Tail{
			Bounds: func() (uint64, uint64) { return 0, 1000 + uint64(time.Since(begin).Milliseconds()) },
			Read: func(_ context.Context, o uint64) (adminpage.Record, error) {
				reads.Add(1)
				return adminpage.Record{Offset: o, Value: []byte("v")}, nil
			},
		}})
		require.NoError(t, err)
		const seconds = 60
		ctx, cancel := context.WithTimeout(t.Context(), seconds*time.Second)
		defer cancel()
		w := &recorder{header: http.Header{}}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "/api/tail", nil)
		require.NoError(t, err)
		p.ServeHTTP(w, req)

		require.LessOrEqual(t, reads.Load(), int64(20*(seconds+1)))
		require.Greater(t, reads.Load(), int64(20*(seconds-2)))
		at, records, skips := uint64(990), 0, uint64(0)
		for _, block := range strings.Split(w.body.String(), "\n\n") {
			_, data, ok := strings.Cut(block, "data: ")
			if !ok {
				continue
			}
			m := decode(t, message{data: data})
			if strings.Contains(block, "event: skipped") {
				at += m.Count
				skips += m.Count
				continue
			}
			require.Equal(t, at, m.Offset, "neither shown nor counted")
			at++
			records++
		}
		require.InDelta(t, reads.Load(), records, 5, "but for those read when the client left")
		require.InDelta(t, 60_000-20*seconds, skips, 500)
	})
}

// recorder is a response that can be flushed and has no deadlines.
type recorder struct {
	header http.Header
	body   strings.Builder
	code   int
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(code int)        { r.code = code }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }
func (r *recorder) Flush()                      {}

func TestWhatCannotBeReadIsSaid(t *testing.T) {
	var refused atomic.Bool
	refused.Store(true)
	_, s := serve(t, adminpage.Config{Tail: &adminpage.Tail{
		Bounds: func() (uint64, uint64) { return 0, 3 },
		Read: func(_ context.Context, o uint64) (adminpage.Record, error) {
			switch {
			case o == 0:
				return adminpage.Record{}, adminpage.ErrGone
			case refused.Swap(false):
				return adminpage.Record{}, errors.New("proxy1 may not consume")
			}
			return adminpage.Record{Offset: o}, nil
		},
	}})
	ms := listen(t, s.URL+"/api/tail")
	require.EqualValues(t, 1, decode(t, next(t, ms, "skipped")).Count)
	require.Equal(t, "proxy1 may not consume", decode(t, next(t, ms, "trouble")).Text)
	require.EqualValues(t, 1, decode(t, next(t, ms, "record")).Offset, "it is tried again")
}

func TestNoTail(t *testing.T) {
	_, s := serve(t, adminpage.Config{NoTail: "not here"})
	res, body := get(t, s.URL+"/api/tail")
	require.Equal(t, http.StatusNotFound, res.StatusCode)
	require.Contains(t, body, "not here")
	_, page := get(t, s.URL)
	require.Contains(t, page, "not here")
	require.NotContains(t, page, `id="tail"`)
}
