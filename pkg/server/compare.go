package server

import (
	"context"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
)

// CompareHash tells a peer this node's hash of the state at an announced entry. A
// difference makes this node ask the voters as well.
func (s *Server) CompareHash(ctx context.Context, req *nodev1.CompareHashRequest) (*nodev1.CompareHashResponse, error) {
	known, hash, err := s.replica.CompareHash(callerOf(ctx).identity.Name, req.GetIndex(), req.GetHash())
	if err != nil {
		return nil, err
	}
	return &nodev1.CompareHashResponse{Known: known, Hash: hash}, nil
}
