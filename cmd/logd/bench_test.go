package main

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// measured runs a benchmark, which must say it in JSON.
func measured(t *testing.T, args ...string) summary {
	t.Helper()
	got := logd(t, "", append([]string{"bench"}, append(args, "-format", "json")...)...)
	var s summary
	require.NoError(t, json.Unmarshal([]byte(got.stdout), &s), "%s%s", got.stdout, got.stderr)
	require.Equal(t, s.Failed > 0, got.code == 1, got.stderr)
	return s
}

func TestBench(t *testing.T) {
	log, addr := startLog(t)
	for name, args := range map[string][]string{
		"by calls":               {"produce", "-n", "500", "-size", "1KiB", "-in-flight", "7", "-connections", "2"},
		"on streams":             {"produce", "-n", "500", "-size", "1KiB", "-stream", "-connections", "2"},
		"at a rate":              {"produce", "-n", "500", "-size", "1KiB", "-rate", "100000"},
		"a stream with a window": {"produce", "-n", "500", "-size", "1KiB", "-stream", "-in-flight", "1"},
	} {
		t.Run(name, func(t *testing.T) {
			log.mu.Lock()
			log.records = nil
			log.mu.Unlock()
			s := measured(t, append(args, "-address", addr)...)
			require.EqualValues(t, 500, s.Records)
			require.Len(t, log.records, 500, "as many as it says")
			require.Len(t, log.records[0].GetValue(), 1024)
			require.InEpsilon(t, s.PerSecond*1024, s.BytesPerSecond, 0.001)
			require.LessOrEqual(t, s.Latency["p50"], s.Latency["max"])
			var counted int64
			for _, b := range s.Histogram {
				counted += b.Count
			}
			require.EqualValues(t, 500, counted)
			require.GreaterOrEqual(t, s.Histogram[len(s.Histogram)-1].Below, s.Latency["max"])
		})
	}
	for name, args := range map[string][]string{
		"to the end":  {"consume", "-readers", "2"},
		"so many":     {"consume", "-readers", "3", "-n", "1000"},
		"following":   {"consume", "-readers", "2", "-follow", "-from", "earliest", "-n", "1000"},
		"for so long": {"consume", "-readers", "2", "-follow", "-from", "earliest", "-for", "1s"},
	} {
		t.Run(name, func(t *testing.T) {
			s := measured(t, append(args, "-address", addr)...)
			require.EqualValues(t, 1000, s.Records)
			require.InEpsilon(t, s.PerSecond*1024, s.BytesPerSecond, 0.001)
		})
	}
}

func TestBenchSaysWhatFailed(t *testing.T) {
	log, addr := startLog(t)
	log.refuse = 3
	got := logd(t, "", "bench", "produce", "-address", addr, "-n", "10", "-in-flight", "1")
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stdout, "How long a record until acknowledged")
	require.Contains(t, got.stderr, "7 failed, the first with: ")
	require.Contains(t, got.stderr, "a limit is reached")

	got = logd(t, "", "bench", "produce", "-address", addr, "-n", "10", "-stream")
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "a limit is reached")

	got = logd(t, "", "bench", "produce", "-address", addr, "-for", "1h", "-in-flight", "1")
	require.Contains(t, got.stderr, "100 failed", "nothing ever succeeded: it does not go on for an hour")

	got = logd(t, "", "bench", "produce", "-address", "127.0.0.1:1")
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "is it running")
	require.Empty(t, got.stdout)
	for _, args := range [][]string{{"-size", "2MiB"}, {"-size", "x"}, {"-in-flight", "0"}, {"-rate", "-1"}, {"-connections", "0"}} {
		got = logd(t, "", append([]string{"bench", "produce", "-address", addr}, args...)...)
		require.Equal(t, 2, got.code, args)
	}
}

// A record's time counts from when it was due, not from when there was a hand free.
func TestARecordIsDueWhateverWasSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turn := &turns{load: &load{extent: extent{records: 3}, rate: 10}, start: time.Now()}
		began := time.Now()
		for i := range 2 {
			due, ok := turn.next(t.Context())
			require.True(t, ok)
			require.Equal(t, time.Duration(i)*100*time.Millisecond, due.Sub(began))
			require.Equal(t, due, time.Now(), "it is waited for")
		}
		time.Sleep(time.Second) // a slow answer
		due, ok := turn.next(t.Context())
		require.True(t, ok)
		require.Equal(t, 200*time.Millisecond, due.Sub(began), "900 ms ago")
		_, ok = turn.next(t.Context())
		require.False(t, ok, "three were asked for")
	})
}
