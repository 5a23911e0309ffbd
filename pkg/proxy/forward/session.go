package forward

import (
	"container/list"
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/logd-io/logd/pkg/apierr"
)

// Metadata keys.
const (
	mdSession    = "logd-session"
	mdRoutingKey = "logd-routing-key"
	mdRequestID  = "logd-request-id"
	mdPosition   = "logd-position"
	mdPrincipal  = "logd-original-principal" // proxy to node only
	mdCluster    = "logd-cluster"            // proxy to node only
	mdPushback   = "grpc-retry-pushback-ms"
)

// maxID bounds what a client may name a session or a request.
const maxID = 512

// session is how far one client has seen the log.
type session struct {
	position atomic.Uint64 // the offset after the last one acknowledged or delivered; never decreases
	known    atomic.Bool   // position covers what was seen before this proxy started
}

func (s *session) advance(position uint64) {
	for {
		old := s.position.Load()
		if position <= old || s.position.CompareAndSwap(old, position) {
			return
		}
	}
}

type sessionKey struct{ principal, id string }

// sessions remembers the named sessions, the least recently used going first. One
// that was forgotten is unknown when it comes back, and its first read asks the
// leader.
type sessions struct {
	max int

	mu   sync.Mutex
	byID map[sessionKey]*list.Element // guarded by mu
	used list.List                    // of *namedSession, most recently used first; guarded by mu
}

type namedSession struct {
	key sessionKey
	session
}

func newSessions(limit int) *sessions {
	return &sessions{max: limit, byID: make(map[sessionKey]*list.Element)}
}

func (s *sessions) get(key sessionKey) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.byID[key]; ok {
		s.used.MoveToFront(e)
		return &e.Value.(*namedSession).session
	}
	if s.used.Len() >= s.max {
		last := s.used.Back()
		s.used.Remove(last)
		delete(s.byID, last.Value.(*namedSession).key)
	}
	n := &namedSession{key: key}
	s.byID[key] = s.used.PushFront(n)
	return &n.session
}

func (s *sessions) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used.Len()
}

// sessionOf is the session a call belongs to. own says that the client named it.
func (f *Forwarder) sessionOf(ctx context.Context, principal string) (s *session, own bool, err error) {
	if v := metadata.ValueFromIncomingContext(ctx, mdSession); len(v) > 0 {
		if id := v[0]; len(v) == 1 && id != "" && len(id) <= maxID {
			return f.sessions.get(sessionKey{principal, "s" + id}), true, nil
		}
		return nil, false, apierr.Invalid{Field: mdSession, Why: fmt.Sprintf("exactly one, of 1 to %d bytes", maxID)}
	}
	if f.cfg.Sessions == SessionConnection {
		if p, ok := peer.FromContext(ctx); ok && p.Addr != nil {
			return f.sessions.get(sessionKey{principal, "c" + p.Addr.String()}), false, nil
		}
	}
	return &f.shared, false, nil
}

// clientPosition is the position the client sent along, 0 when it sent none.
func (f *Forwarder) clientPosition(ctx context.Context) (position uint64, sent bool, err error) {
	v := metadata.ValueFromIncomingContext(ctx, mdPosition)
	if len(v) == 0 {
		return 0, false, nil
	}
	cluster, off, ok := strings.Cut(v[0], ":")
	position, perr := strconv.ParseUint(off, 10, 64)
	if len(v) != 1 || !ok || perr != nil {
		return 0, false, apierr.Invalid{Field: mdPosition, Why: "<cluster uuid>:<offset> is wanted"}
	}
	if ours := f.cfg.Holder.Load().ClusterID; ours != "" && cluster != ours {
		return 0, false, apierr.Invalid{Field: mdPosition, Why: "it belongs to another cluster"}
	}
	return position, true, nil
}

// positionMD is what replies carry; nil while the cluster is not known.
func (f *Forwarder) positionMD(position uint64) metadata.MD {
	id := f.cfg.Holder.Load().ClusterID
	if id == "" {
		return nil
	}
	b := make([]byte, 0, len(id)+21)
	b = append(append(b, id...), ':')
	return metadata.MD{mdPosition: {string(strconv.AppendUint(b, position, 10))}}
}

// setPosition puts the session's position into the header of a unary reply, or the
// call's own when that is higher: a client that carries on the last it was told must
// not lose what it sent.
func (f *Forwarder) setPosition(ctx context.Context, s *session, position uint64) {
	if md := f.positionMD(max(s.position.Load(), position)); md != nil {
		_ = grpc.SetHeader(ctx, md) // fails only when the client has gone
	}
}

// HeaderSafe is s as a metadata value: other bytes than printable ASCII, and the
// percent sign, are percent-encoded.
func HeaderSafe(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c > ' ' && c < 0x7f && c != '%' {
			b.WriteByte(c)
		} else {
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		}
	}
	return b.String()
}
