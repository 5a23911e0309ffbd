package control

import (
	"cmp"
	"context"
	"slices"
	"time"

	"google.golang.org/grpc/connectivity"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/proxy/route"
	"github.com/logd-io/logd/pkg/proxy/upstream"
)

// link is a connection with the goroutines that report on it. Only the control
// goroutine touches its fields, but for node, which never changes.
type link struct {
	node   *upstream.Node
	ctx    context.Context //nolint:containedctx // the life of the link: it ends when the link is let go
	cancel context.CancelFunc

	state     connectivity.State // as last reported
	stopWatch context.CancelFunc // not nil: a watch is open or opening
	live      bool               // that watch has delivered a view
	barren    int                // watches in a row that ended without a view
	retryAt   time.Time          // no new watch before

	// met says that the node has said who it is, and is who it should be, on the
	// connection there is.
	met bool
	// other is the cluster that the node belongs to instead of ours; empty: it is not
	// known to belong to another.
	other string
}

// broken says that a call on the link would fail at once.
func (k *link) broken() bool {
	return k.state == connectivity.TransientFailure || k.state == connectivity.Shutdown
}

// seed is an address of which only the address was told.
type seed struct {
	*link        // nil while its node is known and live
	id    string // of the node that answered there last
	alien string // why what answers there does not count; empty: it does
}

// member is a storage node with an id.
type member struct {
	*link
	id string
	// view is the newest from the node itself; nil when it has not spoken since it
	// was last out of reach.
	view *nodev1.ClusterView
	// leaderless is since when its views have named no leader; zero while they do, and
	// while there are none.
	leaderless time.Time
	// alien is why nothing the node says counts: another cluster, another id.
	alien string
	// chosen says that the node should be watched. Of those that are not, only the
	// connection is known, and that they were met.
	chosen bool
	// failure is what its rest, if it rests, is for.
	failure string

	trust
}

// lag is how far m's readable log ends behind newest.
func (m *member) lag(newest uint64) uint64 {
	if m.view == nil || m.view.Visible >= newest {
		return 0
	}
	return newest - m.view.Visible
}

// serves says that m, as it described itself, answers reads, if behind.
func (m *member) serves() bool {
	if m.alien != "" || m.broken() {
		return false
	}
	if !m.chosen && m.view == nil {
		return m.met && m.state == connectivity.Ready
	}
	return m.view != nil && m.view.Ready && !m.view.Draining
}

// saw takes in the newest view of m; nil: none counts any more.
func (m *member) saw(v *nodev1.ClusterView, now time.Time) {
	m.view = v
	switch {
	case v == nil || v.LeaderId != "":
		m.leaderless = time.Time{}
	case m.leaderless.IsZero():
		m.leaderless = now
	}
}

// trusted says that nothing recent speaks against m.
func (m *member) trusted(now time.Time) bool {
	return (m.live || !m.chosen) && !m.resting(now)
}

// cutOff says that m has known no leader for as long as after: it has not just voted.
func (m *member) cutOff(now time.Time, after time.Duration) bool {
	return !m.leaderless.IsZero() && now.Sub(m.leaderless) >= after
}

// leads says that m, which is said to lead, can be sent produces.
func (m *member) leads() bool {
	return m.alien == "" && !m.broken() && (!m.live || m.view == nil || !m.view.Draining)
}

// newest is the highest visible offset that any node speaks of.
func newest(members []*member) (visible uint64) {
	for _, m := range members {
		if m.view != nil {
			visible = max(visible, m.view.Visible)
		}
	}
	return visible
}

// followers are the members to read from; leader is not among them. A maxLag of
// 0 is none. While there is a leader, one that has known none for
// as long as patience is distrusted: what it has does not grow. Where nobody passes, the least bad is kept: one that is only
// distrusted, always; one that is only too far behind, if there is no leader to
// read from instead.
func followers(members []*member, leader string, haveLeader bool, maxLag uint64, patience time.Duration, now time.Time) []route.Upstream {
	top := newest(members)
	var good []route.Upstream
	var suspects, laggards []*member
	for _, m := range members {
		switch {
		case m.id == leader || !m.serves():
		case maxLag > 0 && m.lag(top) > maxLag:
			laggards = append(laggards, m)
		case !m.trusted(now) || haveLeader && m.cutOff(now, patience):
			suspects = append(suspects, m)
		default:
			good = append(good, m.node)
		}
	}
	switch {
	case len(good) > 0:
	case len(suspects) > 0:
		good = append(good, slices.MinFunc(suspects, func(a, b *member) int {
			return cmp.Or(a.restsUntil.Compare(b.restsUntil), cmp.Compare(a.lag(top), b.lag(top)))
		}).node)
	case len(laggards) > 0 && !haveLeader:
		good = append(good, slices.MinFunc(laggards, func(a, b *member) int {
			return cmp.Compare(a.lag(top), b.lag(top))
		}).node)
	}
	return good
}
