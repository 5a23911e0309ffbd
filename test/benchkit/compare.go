package benchkit

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"
)

// Contender is one of those that are compared.
type Contender struct {
	Name string
	// Measure works for d and tells what it got done.
	Measure func(ctx context.Context, d time.Duration) (Load, error)
	// CPU reads the CPU time that the processes taking part have used, by
	// column of the table.
	CPU func() ([]time.Duration, error)
}

// Result is what one measurement of one contender gave.
type Result struct {
	Load
	CPU []time.Duration // by column
}

// PerSecond is what most goals compare.
func PerSecond(r Result) float64 { return r.Load.PerSecond }

// P50 is the median of the calls, in seconds.
func P50(r Result) float64 { return r.Load.P50.Seconds() }

// CPU is the CPU time of a column in microseconds a record, which are seconds a
// million records.
func CPU(column int) func(Result) float64 {
	return func(r Result) float64 { return r.CPU[column].Seconds() * 1e6 / float64(r.Count) }
}

// Results are the rounds by contender.
type Results map[string][]Result

// Compare measures the contenders in turn and shows the medians in a table;
// columns name its columns of CPU time.
func (s Settings) Compare(ctx context.Context, title string, columns []string, contenders []Contender) (Results, error) {
	about := time.Duration(len(contenders)) * (min(s.Time, warmUp) + time.Duration(s.Rounds)*s.Time)
	fmt.Fprintf(os.Stderr, "... %s: %d rounds of %d, about %s\n", title, s.Rounds, len(contenders), about.Round(time.Second))
	all, err := Interleave(ctx, s, len(contenders), func(ctx context.Context, i int, d time.Duration) (Result, error) {
		r, err := contenders[i].measure(ctx, d)
		if err != nil {
			err = fmt.Errorf("%s: %s: %w", title, contenders[i].Name, err)
		}
		return r, err
	})
	if err != nil {
		return nil, err
	}
	fmt.Printf("\n%-30s %10s %9s %9s", title, "records/s", "p50", "p99")
	for _, name := range columns {
		fmt.Printf(" %9s", name)
	}
	fmt.Println()
	results := make(Results)
	for i, c := range contenders {
		results[c.Name] = all[i]
		fmt.Println(row(c.Name, all[i]))
	}
	return results, nil
}

func (c Contender) measure(ctx context.Context, d time.Duration) (Result, error) {
	before, err := c.CPU()
	if err != nil {
		return Result{}, err
	}
	load, err := c.Measure(ctx, d)
	if err != nil {
		return Result{}, err
	}
	cpu, err := c.CPU()
	if err != nil {
		return Result{}, err
	}
	for i := range cpu {
		cpu[i] -= before[i]
	}
	return Result{load, cpu}, nil
}

func row(name string, rs []Result) string {
	took := func(of func(Result) time.Duration) string {
		d := time.Duration(Median(rs, func(r Result) float64 { return float64(of(r)) }))
		if d == 0 { // a stream has no calls
			return "-"
		}
		return d.Round(10 * time.Microsecond).String()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "  %-28s %10.0f %9s %9s", name, Median(rs, PerSecond),
		took(func(r Result) time.Duration { return r.Load.P50 }), took(func(r Result) time.Duration { return r.P99 }))
	for i := range rs[0].CPU {
		fmt.Fprintf(&b, " %9.1f", Median(rs, CPU(i)))
	}
	return b.String()
}

// Bound is a goal of one contender beside another, or what is aimed at next.
type Bound struct {
	Kind
	Name            string
	Of              func(Result) float64
	Us, Them        string
	AtLeast, AtMost float64 // the one that is not 0: of the ratio
}

// Hold prints the lines of the bounds. Those between contenders of which one was
// not measured are left out.
func (rs Results) Hold(bounds ...Bound) {
	for _, b := range bounds {
		us, them := rs[b.Us], rs[b.Them]
		if us == nil || them == nil {
			continue
		}
		figure := Ratio(us, them, b.Of)
		name := fmt.Sprintf("%s-%s/%s", b.Name, b.Us, b.Them)
		if b.AtLeast > 0 {
			b.Kind.AtLeast(name, figure, b.AtLeast, "")
		} else {
			b.Kind.AtMost(name, figure, b.AtMost, "")
		}
	}
}
