package server

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/replica"
)

// answerTime bounds the question to the voters whether they are there.
const answerTime = 2 * time.Second

// electedWait bounds how long a new leader may take to apply its first entry
// before it is asked in vain.
const electedWait = time.Second

// GetServers lists the storage nodes of the Raft configuration whose address is
// known.
func (s *Server) GetServers(context.Context, *logv1.GetServersRequest) (*logv1.GetServersResponse, error) {
	v := s.view()
	resp := &logv1.GetServersResponse{}
	for _, p := range v.Peers {
		if addr := s.address(p.ID); addr != "" {
			resp.Servers = append(resp.Servers, &logv1.Server{Id: p.ID, RpcAddr: addr, IsLeader: p.ID == v.LeaderID})
		}
	}
	return resp, nil
}

// GetOffsets tells where this node's log begins and ends.
func (s *Server) GetOffsets(ctx context.Context, req *logv1.GetOffsetsRequest) (*logv1.GetOffsetsResponse, error) {
	if err := s.caughtUp(ctx); err != nil {
		return nil, err
	}
	resp := &logv1.GetOffsetsResponse{Lowest: s.log.Lowest(), Next: s.log.Visible()}
	resp.AtTime = s.at(req.Time)
	return resp, nil
}

// Offsets is GetOffsets for proxies.
func (s *Server) Offsets(ctx context.Context, req *nodev1.OffsetsRequest) (*nodev1.OffsetsResponse, error) {
	if err := s.caughtUp(ctx); err != nil {
		return nil, err
	}
	resp := &nodev1.OffsetsResponse{Lowest: s.log.Lowest(), Visible: s.log.Visible()}
	resp.AtTime = s.at(req.Time)
	return resp, nil
}

// caughtUp waits, on a node that has just been elected, until it has applied an
// entry of its own term. Before that its log may end below what the leader before
// it acknowledged, while the caller takes a leader's word for the end of the log.
func (s *Server) caughtUp(ctx context.Context) error {
	var bound <-chan time.Time
	for {
		changed := s.replica.Changes()
		if v := s.replica.View(); v.LeaderID != s.cfg.NodeID || v.IsLeader {
			return nil
		}
		if bound == nil {
			timer := time.NewTimer(electedWait)
			defer timer.Stop()
			bound = timer.C
		}
		select {
		case <-changed:
		case <-bound:
			return apierr.Draining{}
		case <-s.stopping:
			return apierr.Draining{}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *Server) at(t *int64) *uint64 {
	if t == nil {
		return nil
	}
	off := s.log.OffsetAt(*t)
	return &off
}

// WatchCluster sends the view at once, whenever it changes, and with a slow tick
// for the offsets. It ends when the server stops, after a view that says so.
func (s *Server) WatchCluster(_ *nodev1.WatchClusterRequest, stream grpc.ServerStreamingServer[nodev1.ClusterView]) error {
	return s.tail(stream, func(ctx context.Context, snd *sender) error {
		tick := time.NewTicker(s.cfg.OffsetsInterval)
		defer tick.Stop()
		draining := s.draining
		for {
			changed := s.replica.Changes()
			if err := snd.send(s.clusterView()); err != nil {
				return err
			}
			select {
			case <-changed:
			case <-tick.C:
			case <-draining:
				draining = nil // closed for good
			case <-ctx.Done():
				if draining != nil {
					_ = snd.send(s.clusterView()) // the last word; the stream ends either way
				}
				return context.Cause(ctx)
			}
		}
	})
}

func (s *Server) clusterView() *nodev1.ClusterView {
	v := s.view()
	return &nodev1.ClusterView{
		ClusterId: v.ClusterID, Term: v.Term, LeaderId: v.LeaderID, Peers: s.peers(v),
		Visible: s.log.Visible(), Lowest: s.log.Lowest(),
		NodeId: s.cfg.NodeID, Ready: v.Ready, Draining: v.Draining,
	}
}

func (s *Server) peers(v replica.View) []*nodev1.Peer {
	peers := make([]*nodev1.Peer, len(v.Peers))
	for i, p := range v.Peers {
		peers[i] = &nodev1.Peer{Id: p.ID, RpcAddr: s.address(p.ID), Voter: p.Voter}
	}
	return peers
}

// Join takes the caller's node into the configuration as a non-voter. A node
// that is in it already stays what it is, and one that was removed stays out.
func (s *Server) Join(ctx context.Context, req *nodev1.JoinRequest) (*nodev1.JoinResponse, error) {
	name := callerOf(ctx).identity.Name
	if !idOf(req.GetId(), name) {
		return nil, apierr.Invalid{Field: "id", Why: fmt.Sprintf("%q is no id of %s, the name in the certificate", req.GetId(), name)}
	}
	s.joins.Lock()
	defer s.joins.Unlock()
	if err := s.leaderOnly(); err != nil {
		return nil, err
	}
	v := s.replica.View()
	if got := req.GetClusterId(); got != "" && got != v.ClusterID {
		return nil, apierr.Invalid{Field: "cluster_id", Why: fmt.Sprintf(
			"%s belongs to cluster %s, this is %s: start it with another data_dir, or remove what it has and it joins as a new node", req.GetId(), got, v.ClusterID)}
	}
	for _, p := range v.Peers {
		switch {
		case p.ID == req.GetId():
			return &nodev1.JoinResponse{ClusterId: v.ClusterID}, nil
		case idOf(p.ID, name):
			return nil, apierr.Invalid{Field: "id", Why: fmt.Sprintf(
				"%s is in the configuration as %s; remove that id first: logd operator raft remove-peer %s", name, p.ID, p.ID)}
		}
	}
	// Only who was in the configuration is bound to the cluster. A leader that was
	// deposed, and does not know, may not know that it has been taken in either.
	if req.GetClusterId() != "" {
		if _, err := s.replica.ReadIndex(ctx); err != nil {
			return nil, fmt.Errorf("join %s: %w", req.GetId(), err)
		}
		if slices.ContainsFunc(s.replica.Peers(), func(p replica.Peer) bool { return p.ID == req.GetId() }) {
			return &nodev1.JoinResponse{ClusterId: v.ClusterID}, nil
		}
		return nil, apierr.Invalid{Field: "id", Why: fmt.Sprintf(
			"%s was removed from the cluster, and a removed id does not come back: stop it and remove its data_dir, then it joins as a new node", req.GetId())}
	}
	if err := s.replica.AddNonvoter(ctx, req.GetId()); err != nil {
		return nil, fmt.Errorf("join %s: %w", req.GetId(), err)
	}
	s.logger.Info("node joined as non-voter", "node", req.GetId(), "address", req.GetRpcAddr())
	return &nodev1.JoinResponse{ClusterId: v.ClusterID}, nil
}

// idOf says whether id is `<name>.<8 hex>`.
func idOf(id, name string) bool {
	hex, ok := strings.CutPrefix(id, name+".")
	return ok && len(hex) == 8 && strings.Trim(hex, "0123456789abcdef") == ""
}

// Promise binds this node to one cluster and first configuration.
func (s *Server) Promise(ctx context.Context, req *nodev1.PromiseRequest) (*nodev1.PromiseResponse, error) {
	if name := callerOf(ctx).identity.Name; !idOf(req.GetInitiator(), name) {
		return nil, apierr.Invalid{Field: "initiator", Why: fmt.Sprintf("%q is no id of %s, the name in the certificate", req.GetInitiator(), name)}
	}
	if !slices.Contains(req.GetServers(), req.GetInitiator()) || !slices.Contains(req.GetServers(), s.cfg.NodeID) {
		return nil, apierr.Invalid{Field: "servers", Why: "the list lacks the initiator or this node"}
	}
	if err := s.cfg.Promises.Grant(ctx, req.GetClusterId(), req.GetInitiator(), req.GetServers()); err != nil {
		s.logger.Warn("promise refused", "initiator", req.GetInitiator(), "cluster", req.GetClusterId(), "err", err)
		return nil, apierr.Invalid{Field: "cluster_id", Why: "promise refused: " + err.Error()}
	}
	return &nodev1.PromiseResponse{}, nil
}

// Stats tells how this node's Raft and log stand.
func (s *Server) Stats(context.Context, *nodev1.StatsRequest) (*nodev1.StatsResponse, error) {
	st, v := s.replica.Stats(), s.view()
	var pilot *nodev1.Autopilot
	if s.cfg.Autopilot != nil {
		pilot = s.cfg.Autopilot()
	}
	contact := int64(-1)
	if st.LastContact >= 0 {
		contact = st.LastContact.Milliseconds()
	}
	return &nodev1.StatsResponse{
		NodeId: s.cfg.NodeID, ClusterId: v.ClusterID, State: string(st.State), Term: st.Term, LeaderId: st.LeaderID,
		LastIndex: st.LastIndex, LastTerm: st.LastTerm, CommitIndex: st.CommitIndex, AppliedIndex: st.AppliedIndex,
		LastContactMs: contact, Visible: st.Visible, Lowest: st.Lowest, Ready: v.Ready, Draining: v.Draining,
		LogBytes: uint64(max(st.LogBytes, 0)), Segments: uint32(st.Segments), Version: s.cfg.Version, Peers: s.peers(v),
		DiskFreeBytes: st.DiskFree, DiskLow: st.DiskLow,
		ClockUnixNano: s.cfg.Clock().UnixNano(), DamagedEntries: st.Damaged,
		Autopilot: pilot, Process: s.cfg.Process,
	}, nil
}

// TransferLeadership hands leadership on and says who has it then.
func (s *Server) TransferLeadership(ctx context.Context, req *nodev1.TransferLeadershipRequest) (*nodev1.TransferLeadershipResponse, error) {
	if err := s.leaderOnly(); err != nil {
		return nil, err
	}
	target := req.GetTargetId()
	if target != "" && !slices.ContainsFunc(s.replica.View().Peers, func(p replica.Peer) bool { return p.ID == target && p.Voter }) {
		return nil, apierr.Invalid{Field: "target_id", Why: fmt.Sprintf("%q is no voter", target)}
	}
	who := callerOf(ctx)
	s.logger.Info("leadership transfer", "by", who.identity.Name, "to", target)
	if target != s.cfg.NodeID {
		if err := s.replica.Transfer(ctx, target); err != nil {
			return nil, fmt.Errorf("transfer leadership: %w", err)
		}
	}
	for {
		changed := s.replica.Changes()
		if v := s.replica.View(); v.LeaderID != "" && (v.LeaderID != s.cfg.NodeID || target == s.cfg.NodeID) {
			return &nodev1.TransferLeadershipResponse{LeaderId: v.LeaderID}, nil
		}
		select {
		case <-changed:
		case <-s.stopping:
			return nil, apierr.Draining{}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// RemovePeer takes a node out of the configuration. A leader does not remove
// itself: its clients would learn nothing.
func (s *Server) RemovePeer(ctx context.Context, req *nodev1.RemovePeerRequest) (*nodev1.RemovePeerResponse, error) {
	if err := s.leaderOnly(); err != nil {
		return nil, err
	}
	id := req.GetId()
	switch {
	case id == s.cfg.NodeID:
		return nil, apierr.Invalid{Field: "id", Why: fmt.Sprintf("%s leads; transfer leadership first", id)}
	case !slices.ContainsFunc(s.replica.View().Peers, func(p replica.Peer) bool { return p.ID == id }):
		return nil, apierr.Invalid{Field: "id", Why: fmt.Sprintf("%q is not in the configuration", id)}
	}
	if err := s.bearable(ctx, id); err != nil {
		return nil, err
	}
	s.logger.Info("peer removed", "by", callerOf(ctx).identity.Name, "node", id)
	if err := s.replica.RemovePeer(ctx, id); err != nil {
		return nil, fmt.Errorf("remove %s: %w", id, err)
	}
	return &nodev1.RemovePeerResponse{}, nil
}

// bearable refuses a removal that those who are left could not commit, since too few of
// them answer. Raft goes by the new configuration at once: it would have no leader until
// the others are back, though the node that was to go is alive. So it is when an operator
// names one that lives in place of one that died. They are asked now, and not looked up:
// who leads since a moment ago knows of nobody that it is dead.
func (s *Server) bearable(ctx context.Context, id string) error {
	if s.cfg.Answers == nil {
		return nil
	}
	var others []string
	for _, p := range s.replica.View().Peers {
		switch {
		case p.ID == id && !p.Voter:
			return nil
		case p.Voter && p.ID != id && p.ID != s.cfg.NodeID:
			others = append(others, p.ID)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	type answer struct {
		id  string
		err error
	}
	answers := make(chan answer, len(others)) // one each: nobody waits to answer
	for _, other := range others {
		s.helpers.Go(func() { answers <- answer{other, s.cfg.Answers(ctx, other)} })
	}
	need := (len(others) + 1) / 2 // and this node, of len(others)+1
	var silent []string
	for range others {
		if need == 0 {
			return nil
		}
		if a := <-answers; a.err == nil {
			need--
		} else {
			silent = append(silent, a.id)
		}
	}
	if need == 0 {
		return nil
	}
	slices.Sort(silent)
	return apierr.Invalid{Field: "id", Why: fmt.Sprintf(
		"without %s too few voters would be left to go on: %s does not answer; bring that back first, or remove it and not %s", id, strings.Join(silent, ", "), id)}
}
