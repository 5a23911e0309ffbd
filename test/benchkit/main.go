package benchkit

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Settings are what every benchmark is told by flags.
type Settings struct {
	Rounds int           // how often each figure is measured
	Time   time.Duration // how long one measurement takes
}

// Figure is something that a command measures.
type Figure struct {
	Name  string
	Extra bool // only when -only names it
	Run   func(context.Context) error
}

// Command is a benchmark command.
type Command struct {
	Name  string
	About string // a sentence for its usage
	// Settings has the defaults, and after the flags were parsed what they say.
	// Without a Time there is no -time.
	*Settings
	Figures []Figure
	// Around, if not nil, runs around all figures: it is where they get what
	// they share.
	Around func(ctx context.Context, figures func(context.Context) error) error
}

// Main parses the flags, those of the command itself among them, measures the
// figures in turn until one fails or a signal comes, and returns the exit code.
func (c *Command) Main() (code int) {
	var normal, all []string
	for _, f := range c.Figures {
		all = append(all, f.Name)
		if !f.Extra {
			normal = append(normal, f.Name)
		}
	}
	only := flag.String("only", strings.Join(normal, ","), "what to measure, of "+strings.Join(all, ", "))
	flag.IntVar(&c.Rounds, "rounds", c.Rounds, "how often each figure is measured")
	timed := c.Time > 0
	if timed {
		flag.DurationVar(&c.Time, "time", c.Time, "how long one measurement takes")
	}
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "Usage: %s [flags]\n\n%s\n\n", c.Name, c.About)
		flag.PrintDefaults()
	}
	flag.Parse()
	figures, err := c.pick(strings.Split(*only, ","))
	if err == nil && (c.Rounds < 1 || timed && c.Time <= 0 || flag.NArg() > 0) {
		err = errors.New("-rounds and -time have to be above zero, and nothing follows the flags")
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", c.Name, err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	fmt.Printf("%s %s/%s, %d CPUs; medians of %d rounds\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), c.Rounds)
	begun := time.Now()
	if err := c.run(ctx, figures); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", c.Name, err)
		return 1
	}
	fmt.Printf("\n%s took %s\n", c.Name, time.Since(begun).Round(time.Second))
	return 0
}

func (c *Command) pick(names []string) ([]Figure, error) {
	var picked []Figure
	for _, name := range names {
		found := false
		for _, f := range c.Figures {
			if f.Name == name {
				picked, found = append(picked, f), true
			}
		}
		if !found {
			return nil, fmt.Errorf("-only: there is no figure %q", name)
		}
	}
	return picked, nil
}

func (c *Command) run(ctx context.Context, figures []Figure) error {
	all := func(ctx context.Context) error {
		for _, f := range figures {
			if err := f.Run(ctx); err != nil {
				return fmt.Errorf("%s: %w", f.Name, err)
			}
		}
		return nil
	}
	if c.Around == nil {
		return all(ctx)
	}
	return c.Around(ctx, all)
}
