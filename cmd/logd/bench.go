package main

import (
	"context"
	"flag"
	"sync"
	"time"

	"github.com/logd-io/logd/config"
	"github.com/logd-io/logd/internal/cli"
	"github.com/logd-io/logd/pkg/client"
)

// extent is how much a benchmark does: so many records, or for so long.
type extent struct {
	records uint64 // 0: no limit
	time    time.Duration
}

func extentFlags(fs *flag.FlagSet) *extent {
	e := &extent{}
	fs.Uint64Var(&e.records, "n", 0, "`number` of records to end after. Default: no limit")
	fs.DurationVar(&e.time, "for", 0, "`duration` to end after. Default: 10s, with -n no limit")
	return e
}

func benchProduceCommand() cli.Command {
	return cli.Command{
		Name:     "bench produce",
		Synopsis: "Measure appending",
		Long: `Appends records of random bytes to the log, which they stay in, and shows how many
a second were acknowledged and how long each took: by as many calls at a time as
-in-flight says, or with -stream on one stream with as many records under way.
With -rate a record's time counts from when it was due, so that one slow answer
does not hide how long those after it would have waited.`,
		Examples: `bench produce
bench produce -in-flight 1 -size 1KiB -for 30s
bench produce -rate 2000 -n 100000 -format json
bench produce -stream -in-flight 1024`,
		Setup: func(fs *flag.FlagSet, env cli.Env) cli.Action {
			connect := cli.ConnectFlags(fs, env, cli.Sidecar)
			format := cli.FormatFlag(fs)
			much := extentFlags(fs)
			load := load{connections: 1, size: 100, inFlight: 64}
			fs.Func("size", "`bytes` of a record's value, like 100 or 1KiB. Default: 100", func(text string) (err error) {
				load.size, err = config.ParseSize(text)
				return err
			})
			fs.IntVar(&load.inFlight, "in-flight", load.inFlight, "`number` of records under way at a time. Default: 64")
			fs.IntVar(&load.connections, "connections", load.connections, "`number` of connections they are spread over. Default: 1")
			fs.Float64Var(&load.rate, "rate", 0, "`number` of records a second. Default: as many as it can")
			fs.BoolVar(&load.stream, "stream", false, "send on one stream a connection, instead of a call for each")
			return func(ctx context.Context, _ []string) error {
				load.extent, load.timeout = *much, connect.Timeout
				if err := load.validate(); err != nil {
					return err
				}
				conns, err := dialAll(ctx, connect, load.connections)
				defer closeAll(conns)
				if err != nil {
					return err
				}
				m := newMeasure()
				progress := cli.ShowProgress(env, m.line)
				load.produce(ctx, conns, m)
				progress.Stop()
				return m.report(env, *format, "a record until acknowledged")
			}
		},
	}
}

func benchConsumeCommand() cli.Command {
	return cli.Command{
		Name:     "bench consume",
		Synopsis: "Measure reading",
		Long: `Reads the log from -from to its end on as many streams as -readers says, and shows how
many records a second came. With -follow it goes on at the end, and shows how long
after a leader took a record the readers had it, as far as this machine's clock
agrees with the leader's.`,
		Examples: `bench consume
bench consume -readers 8 -n 1000000
bench consume -follow -for 1m`,
		Setup: func(fs *flag.FlagSet, env cli.Env) cli.Action {
			connect := cli.ConnectFlags(fs, env, cli.Sidecar)
			format := cli.FormatFlag(fs)
			much := extentFlags(fs)
			follow := fs.Bool("follow", false, "wait at the end of the log for more, and measure from when a record was taken")
			from := fs.String("from", "", "`earliest|latest|offset|time`; a time is RFC 3339 or how long ago, like 10m.\nDefault: earliest, with -follow latest")
			readers := fs.Int("readers", 1, "`number` of streams that read, each on a connection of its own. Default: 1")
			return func(ctx context.Context, _ []string) error {
				at, err := parseFrom(*from, *follow)
				if err != nil {
					return err
				}
				if *readers < 1 || much.time < 0 {
					return cli.Usagef("-readers and -for: more than nothing")
				}
				conns, err := dialAll(ctx, connect, *readers)
				defer closeAll(conns)
				if err != nil {
					return err
				}
				m := newMeasure()
				progress := cli.ShowProgress(env, m.line)
				read{extent: *much, from: at, follow: *follow, timeout: connect.Timeout}.consume(ctx, conns, m)
				progress.Stop()
				of := ""
				if *follow {
					of = "a record since the leader took it"
				}
				return m.report(env, *format, of)
			}
		},
	}
}

// dialAll makes n connections, and has the first answer a call, so that a wrong
// address is said before anything is measured. The caller closes them, error or not.
func dialAll(ctx context.Context, connect *cli.Connect, n int) ([]*client.Client, error) {
	conns := make([]*client.Client, 0, n)
	for range n {
		c, err := connect.Dial()
		if err != nil {
			return conns, err
		}
		conns = append(conns, c)
	}
	ctx, cancel := context.WithTimeout(ctx, connect.Timeout)
	defer cancel()
	_, err := conns[0].Servers(ctx)
	return conns, err
}

func closeAll(conns []*client.Client) {
	for _, c := range conns {
		_ = c.Close() // everything on it has ended
	}
}

// limited is ctx for as long as the extent says.
func (e extent) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	switch {
	case e.time > 0:
		return context.WithTimeout(ctx, e.time)
	case e.records > 0:
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, 10*time.Second)
}

// spread runs do once for each of n, all at a time.
func spread(n int, do func(i int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { do(i) })
	}
	all.Wait()
}
