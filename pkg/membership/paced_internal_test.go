package membership

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestComplaintsArePaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := newPaced(&out)
		lines := func() int { return strings.Count(out.String(), "\n") }
		for range 10_000 {
			fmt.Fprint(p, "[ERR] memberlist: discarding packet\n")
			fmt.Fprint(p, "[WARN] memberlist: Got bad packet\n")
		}
		require.Equal(t, pacedBurst, lines())
		fmt.Fprint(p, "[INFO] serf: EventMemberJoin: node1\n")
		fmt.Fprint(p, "[DEBUG] memberlist: Stream connection\n")
		fmt.Fprint(p, "[WARN] serf: Shutdown without a Leave\n")
		require.Equal(t, pacedBurst+2, lines(), "what is no complaint passes, and a stop is none")
		time.Sleep(pacedEvery)
		fmt.Fprint(p, "[ERR] memberlist: one more\n")
		fmt.Fprint(p, "[ERR] memberlist: and not this\n")
		require.True(t, strings.HasSuffix(out.String(),
			"[WARN] memberlist: 19950 lines like the next were left out\n[ERR] memberlist: one more\n"), out.String())
		time.Sleep(time.Hour)
		out.Reset()
		for range 1000 {
			fmt.Fprint(p, "[ERR] memberlist: x\n")
		}
		require.Equal(t, pacedBurst+1, lines(), "an hour saves up no more than one burst")
		time.Sleep(time.Hour)
		out.Reset()
		p.end()
		fmt.Fprint(p, "[ERR] memberlist: Failed to send gossip\n")
		fmt.Fprint(p, "[INFO] serf: EventMemberLeave: node1\n")
		require.Equal(t, "[INFO] serf: EventMemberLeave: node1\n", out.String())
	})
}
