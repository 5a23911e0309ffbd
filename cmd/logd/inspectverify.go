package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"sync/atomic"

	"github.com/logd-io/logd/internal/cli"
	"github.com/logd-io/logd/pkg/replica"
)

func inspectVerifyCommand() cli.Command {
	return cli.Command{
		Name:     "inspect verify",
		Synopsis: "Check every byte of a stopped node's directory",
		Args:     "<data dir>",
		Long: `Reads every byte of the log, its checkpoints and Raft's state, and replays the
entries to see that the offset index and the checkpoints say what they do. Each
piece of damage is shown with its file and place, its entry, and what the next
start makes of it. The node must be stopped, and nothing is changed. With damage
it exits with 1; the torn end that a power loss leaves is shown like damage, too.`,
		Examples: `inspect verify /var/lib/logd
inspect verify -format json /var/lib/logd`,
		Setup: func(fs *flag.FlagSet, env cli.Env) cli.Action {
			format := cli.FormatFlag(fs)
			return func(ctx context.Context, args []string) error {
				o, err := openOffline(args)
				if err != nil {
					return err
				}
				return errors.Join(inspectVerify(ctx, env, o, *format), o.Close())
			}
		},
	}
}

type verified struct {
	Entries uint64            `json:"entries"`
	Records uint64            `json:"records"`
	Bytes   int64             `json:"payload_bytes"`
	Refused string            `json:"refused,omitempty"`
	Damage  []inspectedDamage `json:"damage"`
}

func inspectVerify(ctx context.Context, env cli.Env, o *replica.Offline, format cli.Format) error {
	meter := showEntries(env, "verifying")
	v, err := o.Verify(func(index, last uint64) error {
		meter.at(index, last)
		return context.Cause(ctx)
	})
	meter.Stop()
	if err != nil {
		return err
	}
	out := verified{Entries: v.Entries, Records: v.Records, Bytes: v.Bytes, Damage: damages(v)}
	if v.Next.Refused != nil {
		out.Refused = v.Next.Refused.Error()
	}
	if format == cli.JSON {
		err = cli.WriteJSON(env.Stdout, out)
	} else {
		writeDamages(env, out.Damage)
		if out.Refused != "" {
			fmt.Fprintf(env.Stdout, "A start now would find: %s\n", out.Refused)
		}
		_, err = fmt.Fprintf(env.Stdout, "==> %d entries, %d records, %d bytes; %d damaged places\n", out.Entries, out.Records, out.Bytes, len(out.Damage))
	}
	if err == nil && (len(out.Damage) > 0 || out.Refused != "") {
		err = cli.ErrReported
	}
	return err
}

// entryMeter shows how far through the log something is.
type entryMeter struct {
	*cli.Progress
	index, last atomic.Uint64
}

func showEntries(env cli.Env, doing string) *entryMeter {
	m := &entryMeter{}
	m.Progress = cli.ShowProgress(env, func() string {
		return fmt.Sprintf("%s: entry %d of %d", doing, m.index.Load(), m.last.Load())
	})
	return m
}

func (m *entryMeter) at(index, last uint64) {
	m.index.Store(index)
	m.last.Store(last)
}
