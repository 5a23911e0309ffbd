package telemetry_test

import (
	"bytes"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	hclog "github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	"github.com/logd-io/logd/pkg/telemetry"
)

func TestAccessLogIsSampled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		a := telemetry.NewAccessLog(hclog.New(&hclog.LoggerOptions{Level: hclog.Debug, Output: &out, DisableTime: true}))
		require.True(t, a.Enabled())
		lines := func() (all []string) {
			all = strings.Split(strings.TrimSpace(out.String()), "\n")
			out.Reset()
			return all
		}
		note := func(n int, method string, code codes.Code) {
			for range n {
				a.Note(telemetry.Call{Method: method, Code: code, Took: 3 * time.Millisecond, Principal: "alice", Upstream: "n1.00000001"})
			}
		}

		note(100_000, "Produce", codes.OK) // in no time: the clock is the test's
		got := lines()
		require.Len(t, got, 10+99)
		require.Equal(t, `[DEBUG] call: method=Produce code=OK took=3ms principal=alice upstream=n1.00000001`, got[0])
		require.Contains(t, got[10], "left_out=999")

		note(3, "Produce", codes.Unavailable)
		require.Len(t, lines(), 3, "what is rare is not drowned by what is not")

		time.Sleep(time.Second)
		note(1, "Produce", codes.OK)
		got = lines()
		require.Len(t, got, 1)
		require.Contains(t, got[0], "left_out=990", "all that was left out is told in the end")
	})
}

func TestAccessLogKeepsNoMoreThanItMay(t *testing.T) {
	var out bytes.Buffer
	a := telemetry.NewAccessLog(hclog.New(&hclog.LoggerOptions{Level: hclog.Debug, Output: &out}))
	for i := range 20_000 {
		a.Note(telemetry.Call{Method: strconv.Itoa(i), Code: codes.OK})
	}
	require.LessOrEqual(t, a.Kinds(), 1025)
	require.Less(t, bytes.Count(out.Bytes(), []byte("\n")), 1025*10+100)
}

func BenchmarkAccessLogOff(b *testing.B) {
	a := telemetry.NewAccessLog(hclog.New(&hclog.LoggerOptions{Level: hclog.Info}))
	b.ReportAllocs()
	for b.Loop() {
		if a.Enabled() {
			a.Note(telemetry.Call{Method: "Produce", Principal: "alice"})
		}
	}
}

func TestAccessLogOffCostsNothing(t *testing.T) {
	a := telemetry.NewAccessLog(hclog.New(&hclog.LoggerOptions{Level: hclog.Info}))
	require.False(t, a.Enabled(), "so that nobody gathers what a line needs")
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		if a.Enabled() {
			a.Note(telemetry.Call{Method: "Produce", Principal: "alice"})
		}
	}))
}
