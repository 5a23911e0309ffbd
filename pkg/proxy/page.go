package proxy

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/internal/adminpage"
	"github.com/logd-io/logd/pkg/proxy/upstream"
)

func (p *Proxy) newPage() (*adminpage.Page, error) {
	conf := adminpage.Config{
		View: p.view, Status: func() any { return p.Status() }, Events: p.events, Logger: p.log.Named("page"),
		NoTail: "Records are not shown: whoever may see this page need not be allowed to consume. The setting tail of the block admin shows them.",
	}
	if p.cfg.ShowsTail() {
		conf.Tail = &adminpage.Tail{
			Bounds: func() (uint64, uint64) { return 0, p.newest() },
			Read:   p.readForPage,
		}
	}
	return adminpage.New(conf)
}

// newest is the offset after the newest record that any node speaks of.
func (p *Proxy) newest() (visible uint64) {
	for _, n := range p.control.Status().Nodes {
		visible = max(visible, n.Visible)
	}
	return visible
}

// principal is who the proxy itself reads as: what its clients without a certificate
// are, or its own name.
func (p *Proxy) principal() string {
	if p.cfg.Principal != "" && p.cfg.Listener.TLS.IsZero() {
		return p.cfg.Principal
	}
	return upstream.Name(p.id)
}

func (p *Proxy) readForPage(ctx context.Context, offset uint64) (adminpage.Record, error) {
	rec, err := p.forward.Read(ctx, p.principal(), offset)
	if apierr.ReasonOf(err) == apierr.ReasonOutOfRange {
		return adminpage.Record{}, adminpage.ErrGone
	}
	if err != nil {
		return adminpage.Record{}, err
	}
	return adminpage.Record{
		Offset: offset, Time: time.Unix(0, rec.GetTimestamp()).UTC(),
		Key: rec.GetKey(), Value: rec.GetValue(), Headers: len(rec.GetHeaders()),
	}, nil
}

// view is the proxy for the page.
func (p *Proxy) view() *adminpage.View {
	st, seen, now := p.Status(), p.observer.seen(), time.Now()
	v := &adminpage.View{
		Program: "logproxy", Name: upstream.Name(st.ID), At: now.UTC().Format("15:04:05") + " UTC",
		Answers: []adminpage.Answer{answer("You can write", st.Write), answer("You can read", st.Read), leaderOf(st)},
		Self:    adminpage.Place{Key: st.ID, Name: upstream.Name(st.ID), Role: "logproxy", State: "ready", Tone: adminpage.Good},
		Facts: []adminpage.Fact{
			{Name: "Id", Value: st.ID},
			{Name: "Version", Value: orDash(st.Version)},
			{Name: "Cluster", Value: orDash(st.ClusterID)},
			{Name: "Clients come to", Value: st.Addrs.Listener},
			{Name: "Gossip", Value: orDash(st.Addrs.Gossip)},
			{Name: "Admin", Value: st.Addrs.Admin},
			{Name: "Running for", Value: now.Sub(p.began).Round(time.Second).String()},
		},
		Places: []adminpage.Place{},
		Tables: []adminpage.Table{p.nodesTable(st, now), p.loadTable(st, seen)},
	}
	if !st.Ready {
		v.Self.State, v.Self.Tone = strings.Join(st.Reasons, "; "), adminpage.Bad
	}
	for i, s := range p.own {
		leaf, _ := s.Certificates()
		text, _ := days(&leaf.NotAfter, now)
		v.Facts = append(v.Facts, adminpage.Fact{Name: [...]string{"Certificate to nodes", "Certificate to clients"}[i], Value: text + " left"})
	}
	for _, n := range st.Nodes {
		state, tone := stateOf(n)
		v.Places = append(v.Places, adminpage.Place{
			Key: n.ID, Name: upstream.Name(n.ID), Role: roleOf(n), State: state, Tone: tone, Leader: n.Leader,
		})
	}
	return v
}

func answer(question string, c Can) adminpage.Answer {
	if c.OK {
		return adminpage.Answer{Question: question, Text: "Yes", Why: c.Why, Tone: adminpage.Good}
	}
	return adminpage.Answer{Question: question, Text: "No", Why: c.Why, Tone: adminpage.Bad}
}

func leaderOf(st Status) adminpage.Answer {
	a := adminpage.Answer{Question: "Leader", Text: "Nobody known", Why: fmt.Sprintf("term %d", st.Term), Tone: adminpage.Bad}
	if st.LeaderID == "" {
		return a
	}
	a.Text, a.Tone = upstream.Name(st.LeaderID), ""
	for _, n := range st.Nodes {
		if n.Leader {
			return a
		}
	}
	a.Why, a.Tone = a.Why+", but it cannot be reached", adminpage.Bad
	return a
}

func roleOf(n NodeStatus) string {
	switch {
	case n.Leader:
		return "leader"
	case n.Readable:
		return "follower"
	}
	return "unused"
}

// stateOf is how n stands, in a few words.
func stateOf(n NodeStatus) (string, adminpage.Tone) {
	switch {
	case n.Problem != "":
		return n.Problem, adminpage.Bad
	case n.Connection != "READY":
		return "cannot be reached", adminpage.Bad
	case n.Draining:
		return "draining", adminpage.Warn
	case n.Ejected:
		return "ejected", adminpage.Warn
	case n.CutOff:
		return "knows no leader", adminpage.Warn
	case !n.Watched:
		return "not heard of", adminpage.Warn
	case !n.Ready:
		return "not ready", adminpage.Warn
	}
	return "ok", adminpage.Good
}

func (p *Proxy) nodesTable(st Status, now time.Time) adminpage.Table {
	t := adminpage.Table{
		ID: "nodes", Caption: "Nodes", Empty: "No node has been found.",
		Note: "Calls, errors and durations are of clients' unary calls over the last ten seconds; streams count as open. Lag is in records.",
		Columns: []adminpage.Column{
			{Name: "Node"}, {Name: "Role"}, {Name: "State"}, {Name: "Calls/s", Numeric: true}, {Name: "Errors/s", Numeric: true},
			{Name: "p50", Numeric: true}, {Name: "p99", Numeric: true}, {Name: "Lag", Numeric: true},
			{Name: "Open", Numeric: true}, {Name: "Ejected"}, {Name: "Certificate", Numeric: true},
		},
		Rows: []adminpage.Row{},
	}
	for _, n := range st.Nodes {
		state, tone := stateOf(n)
		left, leftTone := days(n.CertificateEnds, now)
		errors := adminpage.Cell{Text: rate(n.Errors)}
		if n.Errors > 0 {
			errors.Tone = adminpage.Warn
		}
		lag := adminpage.Cell{Text: "–"}
		if n.Lag != nil {
			lag.Text = count(float64(*n.Lag))
			if most := p.cfg.Consume.MaxLag; most > 0 && *n.Lag > uint64(most) {
				lag.Text, lag.Tone = lag.Text+" (too far)", adminpage.Warn
			}
		}
		ejected := adminpage.Cell{Text: "no"}
		if n.Ejected {
			ejected = adminpage.Cell{Text: "yes", Tone: adminpage.Warn}
		}
		t.Rows = append(t.Rows, adminpage.Row{Key: n.ID, Cells: []adminpage.Cell{
			{Text: n.ID}, {Text: roleOf(n)}, {Text: state, Tone: tone}, {Text: rate(n.Calls)}, errors,
			{Text: seconds(n.P50)}, {Text: seconds(n.P99)}, lag,
			{Text: count(float64(n.InFlight))}, ejected, {Text: left, Tone: leftTone},
		}})
	}
	return t
}

// loadTable is what the proxy takes on itself and what it refuses.
func (p *Proxy) loadTable(st Status, seen *observed) adminpage.Table {
	total, now := seen.total, seen.now
	t := adminpage.Table{
		ID: "load", Caption: "Load", Empty: "Nothing.",
		Note: "A second: over the last ten seconds. In all: since the process was started.",
		Columns: []adminpage.Column{
			{Name: "What"}, {Name: "Now", Numeric: true}, {Name: "A second", Numeric: true}, {Name: "In all", Numeric: true},
		},
	}
	add := func(what, is, perSecond, all string, tone adminpage.Tone) {
		t.Rows = append(t.Rows, adminpage.Row{Key: what, Cells: []adminpage.Cell{
			{Text: what}, {Text: is}, {Text: perSecond, Tone: tone}, {Text: all},
		}})
	}
	counted := func(what string, now, total float64, is adminpage.Tone) {
		if now == 0 {
			is = ""
		}
		add(what, "", rate(now), count(total), is)
	}
	add("Records appended to the log", "", rate(seen.records), count(float64(p.newest())), "")
	add("Calls of clients", count(float64(p.bounds.calls.gate.Open())), rate(seen.calls), "", "")
	add("Connections of clients", count(float64(p.bounds.conns.Open())), "", "", "")
	add("Produces held for want of a leader's progress", count(float64(st.Held)), rate(now.Held), count(total.Held), "")
	counted("Batches sent again", now.Resent, total.Resent, "")
	counted("Append streams opened again", now.Retries, total.Retries, "")
	counted("Reads tried on a further node", now.ReadRetries, total.ReadRetries, "")
	counted("Reads for which a node was behind their session", now.SessionWaits, total.SessionWaits, "")
	counted("Consume streams continued elsewhere", now.Resumes, total.Resumes, "")
	counted("Produces refused, as too many are held", now.Refused, total.Refused, adminpage.Warn)
	counted("Produces that ran out of time", now.Expired, total.Expired, adminpage.Bad)
	counted("Calls refused for a limit", now.RefusedCalls, total.RefusedCalls, adminpage.Warn)
	counted("Calls and messages past a client's rate", now.Throttled, total.Throttled, adminpage.Warn)
	counted("Connections closed for a limit", now.RefusedConns, total.RefusedConns, adminpage.Warn)
	counted("Streams ended, as they were not read", now.UnreadEnded, total.UnreadEnded, adminpage.Warn)
	return t
}

// rate is a number a second for people.
func rate(r float64) string {
	if r == 0 || r >= 10 {
		return count(r)
	}
	return strconv.FormatFloat(r, 'f', 1, 64)
}

// count is a whole number with its thousands apart.
func count(n float64) string {
	s := strconv.FormatFloat(math.Round(n), 'f', 0, 64)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// seconds is a duration for people; a dash for none.
func seconds(s *float64) string {
	if s == nil {
		return "–"
	}
	switch ms := *s * 1000; {
	case ms < 10:
		return fmt.Sprintf("%.1f ms", ms)
	case ms < 1000:
		return fmt.Sprintf("%.0f ms", ms)
	}
	return fmt.Sprintf("%.1f s", *s)
}

// certificateSoon is how much is left of a certificate that somebody should look after.
const certificateSoon = 7 * 24 * time.Hour

// days is how much there is left until end.
func days(end *time.Time, now time.Time) (string, adminpage.Tone) {
	if end == nil {
		return "–", ""
	}
	left := end.Sub(now)
	switch {
	case left <= 0:
		return "over", adminpage.Bad
	case left < 48*time.Hour:
		return fmt.Sprintf("%.0f h", left.Hours()), adminpage.Warn
	case left < certificateSoon:
		return fmt.Sprintf("%.0f days", math.Floor(left.Hours()/24)), adminpage.Warn
	}
	return fmt.Sprintf("%.0f days", math.Floor(left.Hours()/24)), ""
}

func orDash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}
