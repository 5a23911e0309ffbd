package main

import (
	"fmt"
	"math/bits"
	"strings"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/logd-io/logd/internal/cli"
)

// Durations are kept from a microsecond to ten minutes, to three digits.
const (
	shortest = time.Microsecond
	longest  = 10 * time.Minute
	digits   = 3
)

// givingUp is how many calls may fail before any succeeds.
const givingUp = 100

// measure gathers what a benchmark sees. It is safe for concurrent use.
type measure struct {
	start time.Time

	mu      sync.Mutex
	last    time.Time               // guarded by mu, as what follows; when the last record was counted
	times   *hdrhistogram.Histogram // in microseconds
	records uint64
	bytes   uint64
	failed  uint64
	first   error // why the first one failed
}

func newMeasure() *measure {
	now := time.Now()
	return &measure{start: now, last: now, times: hdrhistogram.New(shortest.Microseconds(), longest.Microseconds(), digits)}
}

// done says that a record of so many bytes, whose time counts since then, is done, or
// has failed.
func (m *measure) done(since time.Time, size int, err error) {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		m.failed++
		if m.first == nil {
			m.first = err
		}
		return
	}
	took := min(max(now.Sub(since), shortest), longest)
	_ = m.times.RecordValue(took.Microseconds()) // it is in range
	m.records++
	m.bytes += uint64(size)
	m.last = now
}

// count is done for a record whose time says nothing.
func (m *measure) count(size int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.records++
	m.bytes += uint64(size)
	m.last = time.Now()
}

// hopeless reports that nothing but failures came.
func (m *measure) hopeless() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.records == 0 && m.failed >= givingUp
}

// line is what the progress shows.
func (m *measure) line() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	seconds := time.Since(m.start).Seconds()
	text := fmt.Sprintf("%.0f s  %d records  %.0f/s", seconds, m.records, float64(m.records)/seconds)
	if m.times.TotalCount() > 0 {
		text += fmt.Sprintf("  p50 %s  p99 %s", m.quantile(50), m.quantile(99))
	}
	if m.failed > 0 {
		text += fmt.Sprintf("  failed %d", m.failed)
	}
	return text
}

func (m *measure) quantile(q float64) time.Duration {
	return time.Duration(m.times.ValueAtQuantile(q)) * time.Microsecond
}

// summary is the result, for a program.
type summary struct {
	Records        uint64             `json:"records"`
	Failed         uint64             `json:"failed"`
	Seconds        float64            `json:"seconds"` // until the last record
	PerSecond      float64            `json:"records_per_second"`
	BytesPerSecond float64            `json:"bytes_per_second"` // of values
	Latency        map[string]float64 `json:"latency_seconds,omitempty"`
	Histogram      []bar              `json:"histogram,omitempty"`
}

// bar is how many records took from the bound of the bar before up to its own.
type bar struct {
	Below float64 `json:"below_seconds"`
	Count int64   `json:"count"`
}

func (m *measure) summary() summary {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := summary{Records: m.records, Failed: m.failed, Seconds: m.last.Sub(m.start).Seconds()}
	if s.Seconds > 0 {
		s.PerSecond = float64(m.records) / s.Seconds
		s.BytesPerSecond = float64(m.bytes) / s.Seconds
	}
	if m.times.TotalCount() == 0 {
		return s
	}
	s.Latency = map[string]float64{
		"min": seconds(m.times.Min()), "mean": m.times.Mean() / 1e6, "max": seconds(m.times.Max()),
		"p50": m.quantile(50).Seconds(), "p90": m.quantile(90).Seconds(),
		"p99": m.quantile(99).Seconds(), "p99.9": m.quantile(99.9).Seconds(),
	}
	s.Histogram = m.bars()
	return s
}

func seconds(micros int64) float64 { return float64(micros) / 1e6 }

// bars has one for each power of two of microseconds, from the first that is not
// empty to the last.
func (m *measure) bars() []bar {
	low, high := bits.Len64(uint64(m.times.Min())), bits.Len64(uint64(m.times.Max()))
	out := make([]bar, high-low+1)
	for i := range out {
		out[i].Below = seconds(1 << (low + i))
	}
	for _, b := range m.times.Distribution() {
		if b.Count > 0 {
			// A value is kept as the lowest of those that look the same.
			out[max(0, bits.Len64(uint64(b.From))-low)].Count += b.Count
		}
	}
	return out
}

// report writes the result; of says what was timed, if anything was. It fails when a
// record did.
func (m *measure) report(env cli.Env, format cli.Format, of string) error {
	s := m.summary()
	if err := s.write(env, format, of); err != nil {
		return err
	}
	if s.Failed > 0 {
		return fmt.Errorf("%d failed, the first with: %w", s.Failed, m.first)
	}
	return nil
}

func (s summary) write(env cli.Env, format cli.Format, of string) error {
	if format == cli.JSON {
		return cli.WriteJSON(env.Stdout, s)
	}
	rows := cli.NewRows("RECORDS", "FAILED", "SECONDS", "RECORDS/S", "MIB/S")
	rows.Add(s.Records, s.Failed, fmt.Sprintf("%.2f", s.Seconds), fmt.Sprintf("%.0f", s.PerSecond), fmt.Sprintf("%.2f", s.BytesPerSecond/(1<<20)))
	if err := rows.Write(env.Stdout); err != nil || len(s.Histogram) == 0 {
		return err
	}
	rows = cli.NewRows("MIN", "MEAN", "P50", "P90", "P99", "P99.9", "MAX")
	var cells []any
	for _, name := range []string{"min", "mean", "p50", "p90", "p99", "p99.9", "max"} {
		cells = append(cells, short(s.Latency[name]))
	}
	rows.Add(cells...)
	if _, err := fmt.Fprintf(env.Stdout, "\nHow long %s:\n\n", of); err != nil {
		return err
	}
	if err := rows.Write(env.Stdout); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(env.Stdout); err != nil {
		return err
	}
	return s.draw(env)
}

// barWidth is how long the longest bar is.
const barWidth = 50

func (s summary) draw(env cli.Env) error {
	var most int64
	for _, b := range s.Histogram {
		most = max(most, b.Count)
	}
	rows := cli.NewRows("BELOW", "RECORDS", "")
	for _, b := range s.Histogram {
		rows.Add(short(b.Below), b.Count, strings.Repeat("#", int((b.Count*barWidth+most-1)/most)))
	}
	return rows.Write(env.Stdout)
}

// short writes a duration to three digits.
func short(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	for unit := time.Nanosecond; ; unit *= 10 {
		if d < 1000*unit {
			return d.Round(unit).String()
		}
	}
}
