package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"time"

	"github.com/logd-io/logd/internal/cli"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
)

// autopilotState is what the leader thinks of the servers.
type autopilotState struct {
	Healthy          bool           `json:"healthy"`
	FailureTolerance uint32         `json:"failure_tolerance"`
	Servers          []serverHealth `json:"servers"`
}

// serverHealth is one of them.
type serverHealth struct {
	ID          string   `json:"id"`
	Voter       bool     `json:"voter"`
	Leader      bool     `json:"leader"`
	Gossip      string   `json:"gossip"`
	Healthy     bool     `json:"healthy"`
	Stable      float64  `json:"stable_seconds"`
	LastContact *float64 `json:"last_contact_seconds"` // null: it did not say
	LastIndex   uint64   `json:"last_index,omitempty"`
	LastTerm    uint64   `json:"last_term,omitempty"`
	Dead        float64  `json:"dead_seconds"` // 0: it is not
}

func autopilotStateCommand() cli.Command {
	return cli.Command{
		Name:     "operator autopilot state",
		Synopsis: "Show which servers are healthy, for the leader",
		Long: `Asks the leader what its autopilot knows: who is healthy and since when, how many
voters may fail, and who has been dead for how long. A non-voter that is healthy is
promoted, and a dead server leaves once another does its part. Any node's address will
do, since it asks the leader that node names. It needs a certificate of role admin.`,
		Examples: "operator autopilot state -address node1:8400",
		Setup: func(fs *flag.FlagSet, env cli.Env) cli.Action {
			connect := cli.ConnectFlags(fs, env, cli.Node)
			format := cli.FormatFlag(fs)
			return func(ctx context.Context, _ []string) error {
				return showAutopilot(ctx, env, connect, *format)
			}
		},
	}
}

func showAutopilot(ctx context.Context, env cli.Env, connect *cli.Connect, format cli.Format) error {
	return onLeader(ctx, connect, func(ctx context.Context, view *nodev1.ClusterView, leader nodev1.NodeClient) error {
		resp, err := leader.Stats(ctx, &nodev1.StatsRequest{})
		if err != nil {
			return err
		}
		if resp.GetAutopilot() == nil { // it leads no more, or has not looked yet
			return fmt.Errorf("the leader has not looked at the servers yet: %w", apierr.NotLeader{Term: view.GetTerm()})
		}
		st := stateOf(resp.GetAutopilot())
		if format == cli.JSON {
			return cli.WriteJSON(env.Stdout, st)
		}
		_, err = fmt.Fprintf(env.Stdout, "Healthy: %t\nFailure tolerance: %d\n\n", st.Healthy, st.FailureTolerance)
		return errors.Join(err, st.rows().Write(env.Stdout))
	})
}

func stateOf(a *nodev1.Autopilot) autopilotState {
	st := autopilotState{Healthy: a.GetHealthy(), FailureTolerance: a.GetFailureTolerance(), Servers: []serverHealth{}}
	for _, s := range a.GetServers() {
		h := serverHealth{
			ID: s.GetId(), Voter: s.GetVoter(), Leader: s.GetLeader(), Gossip: s.GetGossip(), Healthy: s.GetHealthy(),
			Stable: millis(s.GetStableMs()).Seconds(), LastIndex: s.GetLastIndex(), LastTerm: s.GetLastTerm(), Dead: millis(s.GetDeadMs()).Seconds(),
		}
		if ms := s.GetLastContactMs(); ms >= 0 {
			contact := millis(ms).Seconds()
			h.LastContact = &contact
		}
		st.Servers = append(st.Servers, h)
	}
	return st
}

func millis(n int64) time.Duration { return time.Duration(n) * time.Millisecond }

func (st autopilotState) rows() *cli.Rows {
	took := func(seconds float64) string {
		return time.Duration(seconds * float64(time.Second)).Round(time.Millisecond).String()
	}
	rows := cli.NewRows("ID", "STATUS", "GOSSIP", "HEALTHY", "SINCE", "LAST CONTACT", "LAST INDEX", "DEAD FOR")
	for _, s := range st.Servers {
		status, contact, index, dead := "non-voter", "", any(nil), ""
		switch {
		case s.Leader:
			status = "leader"
		case s.Voter:
			status = "voter"
		}
		if s.LastContact != nil {
			contact = took(*s.LastContact)
		}
		if s.LastIndex > 0 { // whoever is in the configuration has an entry
			index = s.LastIndex
		}
		if s.Dead > 0 {
			dead = took(s.Dead)
		}
		rows.Add(s.ID, status, s.Gossip, s.Healthy, took(s.Stable), contact, index, dead)
	}
	return rows
}
