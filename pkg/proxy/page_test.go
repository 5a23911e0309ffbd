package proxy_test

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/proxy"
	"github.com/logd-io/logd/pkg/tlsconf"
	"github.com/logd-io/logd/pkg/tlsconf/tlstest"
)

// stream reads server-sent events of the proxy until until says so, and answers what
// kinds there were. It is over when the stream is.
func stream(t *testing.T, addr, path string, until func(kind, data string) bool) (kinds []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+path, nil)
	require.NoError(t, err)
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	require.Equal(t, http.StatusOK, res.StatusCode)
	kind := ""
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		field, value, _ := strings.Cut(lines.Text(), ": ")
		switch field {
		case "event":
			kind = value
			kinds = append(kinds, kind)
			if kind == "end" {
				return kinds
			}
		case "data":
			if until(kind, value) {
				return kinds
			}
		}
	}
	return kinds
}

func TestPageSaysWhatCanBeDone(t *testing.T) {
	ca := tlstest.NewCA(t, cluster)
	n := startNode(t, ca)
	p := run(t, conf(t, ca, n))
	p.isReady(t)

	happened := map[string]string{}
	stream(t, p.AdminAddr(), "/api/events", func(kind, data string) bool {
		if kind == "event" {
			var e proxy.Event
			require.NoError(t, json.Unmarshal([]byte(data), &e))
			happened[e.Kind] = e.Node
		}
		_, ok := happened["leader"]
		return ok
	})
	require.Equal(t, map[string]string{"cluster": "", "found": n.id, "leader": n.id}, happened)

	st := p.Status()
	require.Equal(t, proxy.Can{OK: true, Why: "produces go to n1"}, st.Write)
	require.True(t, st.Read.OK)
	require.Eventually(t, func() bool { return p.Status().Nodes[0].CertificateEnds != nil }, bound, time.Millisecond, "as it was shown in the handshake")
	_, body := get(t, p.AdminAddr(), "/")
	require.Regexp(t, `(?s)You can write</dt>\s*<dd class="text">Yes</dd>`, body)
	require.Regexp(t, `(?s)Leader</dt>\s*<dd class="text">n1</dd>\s*<dd class="why">term 1</dd>`, body)
	require.Contains(t, body, "leads (term 1): produces go there")

	n.leads("")
	stream(t, p.AdminAddr(), "/api/events", func(kind, data string) bool { return kind == "event" && strings.Contains(data, `"leaderless"`) })
	require.False(t, p.Status().Write.OK)
	_, body = get(t, p.AdminAddr(), "/")
	require.Regexp(t, `(?s)You can write</dt>\s*<dd class="text">No</dd>`, body)

	// A drain is told of, and then there is an end.
	kinds := stream(t, p.AdminAddr(), "/api/events", func(kind, _ string) bool {
		if kind == "status" {
			p.stop()
		}
		return false
	})
	require.Equal(t, "end", kinds[len(kinds)-1])
	require.NoError(t, <-p.done)
}

// Records are shown where whoever sees the page may read them anyway.
func TestTailIsShownWhereEverybodyMayRead(t *testing.T) {
	ca := tlstest.NewCA(t, cluster)
	n := startNode(t, ca)
	c := conf(t, ca, n)
	yes, no := true, false
	require.True(t, c.ShowsTail())
	c.Admin.Tail = &no
	require.False(t, c.ShowsTail())
	c.Admin.Tail = nil
	c.Admin.TLS = true
	require.False(t, c.ShowsTail(), "others see the page than reach the listener")
	c.Admin.TLS = false
	c.Listener.Address = "unix:///somewhere"
	require.False(t, c.ShowsTail(), "a socket has an owner and a mode")
	c.Listener.Address = "127.0.0.1:0"
	f := ca.Files(t, tlsconf.RoleProxy, "px")
	c.Listener.TLS.CAFile, c.Listener.TLS.CertFile, c.Listener.TLS.KeyFile = f.CA, f.Cert, f.Key
	require.False(t, c.ShowsTail(), "TLS asks who somebody is")
	p := run(t, c)
	p.isReady(t)
	code, body := get(t, p.AdminAddr(), "/api/tail")
	require.Equal(t, http.StatusNotFound, code)
	require.Contains(t, body, "tail")
	c.Admin.Tail = &yes
	require.True(t, c.ShowsTail())
}
