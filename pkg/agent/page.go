package agent

import (
	"fmt"
	"strconv"
	"time"

	"github.com/logd-io/logd/pkg/internal/adminpage"
	"github.com/logd-io/logd/pkg/membership"
	"github.com/logd-io/logd/pkg/replica"
)

func (a *Agent) newPage() (*adminpage.Page, error) {
	return adminpage.New(adminpage.Config{
		View: a.pageView, Status: func() any { return a.status() }, Events: a.events, Logger: a.logger.Named("page"),
		NoTail: "A node does not show records. A proxy does, and logd consume.",
	})
}

// pageView is this node for the page.
func (a *Agent) pageView() *adminpage.View {
	st, v, rs, now := a.status(), a.replica.View(), a.replica.Stats(), time.Now()
	number := func(n uint64) string { return strconv.FormatUint(n, 10) }
	page := &adminpage.View{
		Program: "logd", Name: replica.NameOf(a.id), At: now.UTC().Format("15:04:05") + " UTC",
		Answers: []adminpage.Answer{writeAnswer(v, rs), readAnswer(st), leaderAnswer(v)},
		Self:    adminpage.Place{Key: a.id, Name: replica.NameOf(a.id), Role: st.State, State: "ready", Tone: adminpage.Good, Leader: v.IsLeader},
		Places:  []adminpage.Place{}, Tables: []adminpage.Table{a.membersTable(st, v)},
		Facts: []adminpage.Fact{
			{Name: "Id", Value: a.id},
			{Name: "Version", Value: dash(a.deps.Version)},
			{Name: "Cluster", Value: dash(v.ClusterID)},
			{Name: "RPC", Value: st.Addrs.RPC},
			{Name: "Gossip", Value: st.Addrs.Gossip},
			{Name: "Readable offsets", Value: fmt.Sprintf("from %d to before %d", st.Lowest, st.Visible)},
			{Name: "Log on disk", Value: fmt.Sprintf("%s in %d segments", bytesOf(uint64(max(st.LogBytes, 0))), rs.Segments)},
			{Name: "Disk", Value: fmt.Sprintf("%s free, %s of them kept in reserve", bytesOf(rs.DiskFree), bytesOf(rs.DiskReserve))},
			{Name: "Raft index", Value: fmt.Sprintf("last %d, committed %d, applied %d", rs.LastIndex, rs.CommitIndex, rs.AppliedIndex)},
			{Name: "Damaged entries", Value: number(rs.Damaged)},
			{Name: "Bytes scrubbed", Value: fmt.Sprintf("%s, %d passes", bytesOf(rs.Scrub.Bytes), rs.Scrub.Passes)},
			{Name: "Running for", Value: now.Sub(a.began).Round(time.Second).String()},
		},
	}
	if st.Repairs != "" {
		page.Facts = append(page.Facts, adminpage.Fact{Name: "Repair", Value: st.Repairs})
	}
	leaf, _ := a.tls.Certificates()
	page.Facts = append(page.Facts, adminpage.Fact{Name: "Certificate", Value: fmt.Sprintf("%.0f days left", leaf.NotAfter.Sub(now).Hours()/24)})
	if !st.Ready && len(st.Reasons) > 0 {
		page.Self.State, page.Self.Tone = st.Reasons[0], adminpage.Bad
	}
	for _, m := range st.Members {
		if m.ID == a.id || m.Role != string(membership.RoleStorage) {
			continue
		}
		state, tone := memberState(m)
		page.Places = append(page.Places, adminpage.Place{
			Key: m.ID, Name: replica.NameOf(m.ID), Role: memberRole(m, v), State: state, Tone: tone, Leader: m.ID == v.LeaderID,
		})
	}
	return page
}

func writeAnswer(v replica.View, st replica.Stats) adminpage.Answer {
	a := adminpage.Answer{Question: "You can write", Text: "No", Tone: adminpage.Bad}
	switch {
	case v.ClusterID == "":
		a.Why = "this node is in no cluster"
	case v.LeaderID == "":
		a.Why = "no leader is known"
	case v.IsLeader && v.Draining:
		a.Why = "this node leads, and drains"
	case v.IsLeader && st.DiskLow:
		a.Text, a.Tone, a.Why = "Perhaps", adminpage.Warn, "this node leads, and its disk is below its reserve: it takes records only while a majority of disks is not"
	case v.IsLeader:
		a.Text, a.Tone, a.Why = "Yes", adminpage.Good, "this node leads"
	case v.State != replica.StateFollower:
		a.Why = "this node is " + string(v.State)
	default:
		a.Text, a.Tone, a.Why = "Yes", adminpage.Good, "at the leader "+replica.NameOf(v.LeaderID)
	}
	return a
}

func readAnswer(st Status) adminpage.Answer {
	a := adminpage.Answer{Question: "You can read", Text: "Yes", Tone: adminpage.Good, Why: fmt.Sprintf("up to before offset %d", st.Visible)}
	if !st.Ready {
		a.Text, a.Tone, a.Why = "No", adminpage.Bad, "this node is not ready"
		if len(st.Reasons) > 0 {
			a.Why = st.Reasons[0]
		}
	}
	return a
}

func leaderAnswer(v replica.View) adminpage.Answer {
	a := adminpage.Answer{Question: "Leader", Text: "Nobody known", Tone: adminpage.Bad, Why: fmt.Sprintf("term %d", v.Term)}
	if v.LeaderID != "" {
		a.Text, a.Tone = replica.NameOf(v.LeaderID), ""
	}
	return a
}

func memberRole(m Member, v replica.View) string {
	switch {
	case m.Role != string(membership.RoleStorage):
		return m.Role
	case m.ID == v.LeaderID:
		return "leader"
	case m.Voter:
		return "voter"
	}
	return "no vote"
}

func memberState(m Member) (string, adminpage.Tone) {
	switch {
	case m.State == membership.Failed.String():
		return "failed", adminpage.Bad
	case m.State != membership.Alive.String():
		return m.State, adminpage.Warn
	case m.Draining:
		return "draining", adminpage.Warn
	}
	return "alive", adminpage.Good
}

func (a *Agent) membersTable(st Status, v replica.View) adminpage.Table {
	t := adminpage.Table{
		ID: "members", Caption: "Members", Empty: "Gossip knows of nobody.",
		Note: "Role is Raft's; state is what gossip thinks, which decides nothing.",
		Columns: []adminpage.Column{
			{Name: "Member"}, {Name: "Role"}, {Name: "State"}, {Name: "Address"}, {Name: "Version"},
		},
		Rows: []adminpage.Row{},
	}
	for _, m := range st.Members {
		state, tone := memberState(m)
		t.Rows = append(t.Rows, adminpage.Row{Key: m.ID, Cells: []adminpage.Cell{
			{Text: m.ID}, {Text: memberRole(m, v)}, {Text: state, Tone: tone}, {Text: m.Address}, {Text: dash(m.Version)},
		}})
	}
	return t
}

func dash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}
