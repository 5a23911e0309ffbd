package server

import (
	"context"
	"hash/crc32"
	"time"

	"google.golang.org/grpc"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
)

const (
	// extractBytes bounds the data in one FetchEntries message, unless an entry
	// alone is larger.
	extractBytes = 1 << 20
	// maxExtracts is how many peers are served entries or a checkpoint at a time:
	// each may hold a message of entries, or a checkpoint, in memory.
	maxExtracts = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// FetchEntries streams stored entries to a peer that lost its own. It needs
// neither a leader nor Raft: a node that is being repaired itself answers too, as
// far as its log is whole.
func (s *Server) FetchEntries(req *nodev1.FetchEntriesRequest, stream grpc.ServerStreamingServer[nodev1.FetchEntriesResponse]) error {
	if req.GetFirst() == 0 || req.GetFirst() > req.GetLast() {
		return apierr.Invalid{Field: "first", Why: "want 0 < first <= last"}
	}
	leave, err := s.extracting()
	if err != nil {
		return err
	}
	defer leave()
	return s.tail(stream, func(ctx context.Context, snd *sender) error {
		for next, begin := req.GetFirst(), true; next <= req.GetLast() && next != 0; begin = false {
			x, err := s.replica.Entries(next, req.GetLast(), extractBytes)
			if err != nil {
				return err
			}
			if len(x.Entries) == 0 && !begin {
				return nil
			}
			resp := &nodev1.FetchEntriesResponse{CommitIndex: x.Commit, FirstIndex: x.First, LastIndex: x.Last}
			for _, e := range x.Entries {
				resp.Entries = append(resp.Entries, &nodev1.Entry{
					Index: e.Index, Term: e.Term, Type: uint32(e.Type), AppendedAt: e.AppendedAt,
					PayloadCrc: crc32.Checksum(e.Data, castagnoli), Data: e.Data,
				})
			}
			if err := snd.send(resp); err != nil {
				return err
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if len(x.Entries) == 0 {
				return nil
			}
			next += uint64(len(x.Entries))
		}
		return nil
	})
}

// FetchCheckpoint gives the newest checkpoint at or below an entry; one with
// index 0 when there is none.
func (s *Server) FetchCheckpoint(_ context.Context, req *nodev1.FetchCheckpointRequest) (*nodev1.FetchCheckpointResponse, error) {
	leave, err := s.extracting()
	if err != nil {
		return nil, err
	}
	defer leave()
	c, err := s.replica.NewestCheckpoint(req.GetMaxIndex())
	if err != nil {
		return nil, err
	}
	return &nodev1.FetchCheckpointResponse{
		Index: c.Index, Term: c.Term, NextOffset: c.Next, LogBytes: c.Bytes,
		Configuration: c.Config, ConfigurationIndex: c.ConfigIndex, State: c.State,
	}, nil
}

// extracting takes one of the places for peers that repair.
func (s *Server) extracting() (leave func(), err error) {
	select {
	case s.extracts <- struct{}{}:
		return func() { <-s.extracts }, nil
	default:
		return nil, apierr.Overloaded{RetryAfter: 100 * time.Millisecond}
	}
}
