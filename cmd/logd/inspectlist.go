package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"
	"time"

	"github.com/logd-io/logd/internal/cli"
	"github.com/logd-io/logd/pkg/replica"
)

func inspectListCommand() cli.Command {
	return cli.Command{
		Name:     "inspect list",
		Synopsis: "Show what a stopped node's directory holds",
		Args:     "<data dir>",
		Long: `Shows who the node is, its term and vote, where its log begins and ends, how far its
own search for damage (the scrub) was, and its segments, offset files and checkpoints. The node must be stopped, and nothing is
changed. It reads headers and checkpoints; 'logd inspect verify' reads every byte.
With damage in what it reads it exits with 1.`,
		Examples: `inspect list /var/lib/logd
inspect list -format json /var/lib/logd >n1.json`,
		Setup: func(fs *flag.FlagSet, env cli.Env) cli.Action {
			format := cli.FormatFlag(fs)
			return func(_ context.Context, args []string) error {
				o, err := openOffline(args)
				if err != nil {
					return err
				}
				return errors.Join(inspectList(env, o, args[0], *format), o.Close())
			}
		},
	}
}

func inspectList(env cli.Env, o *replica.Offline, dir string, format cli.Format) error {
	next, err := o.NextStart()
	if err != nil {
		return err
	}
	d := listing(dir, o, next)
	d.Damage = damages(&replica.Verdict{Findings: o.Findings(), Next: next})
	if format == cli.JSON {
		err = cli.WriteJSON(env.Stdout, d)
	} else {
		err = writeListing(env, &d)
	}
	switch {
	case err != nil:
		return err
	case len(d.Damage) > 0 || d.NextStart.Refused != "":
		return cli.ErrReported
	}
	return nil
}

// scrubFacts tell how far the node's own search for damage was when it stopped.
func scrubFacts(n *inspectedScrub) []cli.Fact {
	at := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	passes, pass, damaged := "-", "-", "-"
	if n != nil {
		passes, damaged = fmt.Sprint(n.Passes), fmt.Sprintf("%d entries", n.Damaged)
		if n.Passes > 0 {
			passes += ", the newest finished " + at(n.Finished)
		}
		if !n.Began.IsZero() {
			pass = fmt.Sprintf("began %s, was at entry %d, %d bytes read", at(n.Began), n.Index, n.Bytes)
		}
	}
	return []cli.Fact{{Name: "Scrubs", Value: passes}, {Name: "Scrub Begun", Value: pass}, {Name: "Known Damaged", Value: damaged}}
}

func writeListing(env cli.Env, d *inspected) error {
	dash := func(s string) string {
		if s == "" {
			return "-"
		}
		return s
	}
	vote := "-"
	if d.VotedFor != "" {
		vote = fmt.Sprintf("%s in term %d", d.VotedFor, d.VotedIn)
	}
	end := "absent"
	if e := d.DurableEnd; e != nil {
		end = fmt.Sprintf("entry %d of term %d, segment %s up to %d", e.Index, e.Term, e.Segment, e.Place)
	}
	facts := []cli.Fact{
		{Name: "Node", Value: dash(d.NodeID)},
		{Name: "Cluster", Value: dash(d.Cluster)},
		{Name: "Term", Value: fmt.Sprint(d.Term)},
		{Name: "Vote", Value: vote},
		{Name: "Starts After", Value: fmt.Sprintf("entry %d of term %d, at offset %d", d.Start.Index, d.Start.Term, d.Start.Offset)},
		{Name: "Durable End", Value: end},
	}
	if n := d.NextStart; n.Refused != "" {
		facts = append(facts, cli.Fact{Name: "Next Start", Value: "refused: " + n.Refused})
	} else {
		facts = append(facts,
			cli.Fact{Name: "Entries", Value: fmt.Sprintf("%d to %d, the last of term %d", n.First, n.Last, n.LastTerm)},
			cli.Fact{Name: "Commit Known", Value: fmt.Sprint(n.CommitKnown)},
			cli.Fact{Name: "Offsets", Value: fmt.Sprintf("[%d, %d), as far as the offset index goes", n.Lowest, n.Next)})
	}
	facts = append(facts, scrubFacts(d.Scrub)...)
	if d.Unfinished != "" {
		facts = append(facts, cli.Fact{Name: "Unfinished", Value: d.Unfinished})
	}
	if err := cli.WriteFacts(env.Stdout, d.DataDir, facts); err != nil {
		return err
	}
	segments := cli.NewRows("SEGMENT", "FIRST", "LAST", "BYTES", "STATE")
	for _, s := range d.Segments {
		last := any(s.Last)
		if s.Last == 0 {
			last = nil
		}
		segments.Add(s.File, s.First, last, s.Bytes, s.State)
	}
	offsets := cli.NewRows("OFFSET FILE", "FIRST", "BYTES")
	for _, f := range d.Offsets {
		offsets.Add(f.File, f.First, f.Bytes)
	}
	checkpoints := cli.NewRows("CHECKPOINT", "INDEX", "TERM", "NEXT OFFSET", "BYTES", "VERIFIED", "SERVERS")
	for _, c := range d.Checkpoints {
		checkpoints.Add(c.File, c.Index, c.Term, c.Next, c.Bytes, c.Verified, strings.Join(c.Servers, ", "))
	}
	for _, rows := range []*cli.Rows{segments, offsets, checkpoints} {
		fmt.Fprintln(env.Stdout)
		if err := rows.Write(env.Stdout); err != nil {
			return err
		}
	}
	if len(d.Damage) > 0 {
		fmt.Fprintln(env.Stdout, "\nDamage:")
		writeDamages(env, d.Damage)
	}
	return nil
}
