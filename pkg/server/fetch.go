package server

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
)

const (
	defaultFetchBytes = 1 << 20
	// maxFetchBytes keeps a response below the 4 MiB gRPC clients take.
	maxFetchBytes    = 3 << 20
	defaultHeartbeat = 250 * time.Millisecond
	minHeartbeat     = 10 * time.Millisecond
)

func fetchBytes(asked uint32) int {
	if asked == 0 {
		return defaultFetchBytes
	}
	return int(min(asked, maxFetchBytes))
}

// fetch answers Node.Fetch.
func (s *Server) fetch(ctx context.Context, in []byte) (*frame, error) {
	var req nodev1.FetchRequest
	if err := proto.Unmarshal(in, &req); err != nil {
		return nil, malformed("", err)
	}
	if req.GetForBackup() {
		return nil, apierr.Invalid{Field: "for_backup", Why: "is for a stream, not for a single read"}
	}
	who := callerOf(ctx)
	if err := who.rates.MayRead(who.principal); err != nil {
		return nil, err
	}
	min := req.GetMinPosition()
	if req.GetLinearizable() {
		bounded, cancel := linearTime(ctx)
		defer cancel()
		position, err := s.linearize(bounded)
		if err != nil {
			return nil, err
		}
		min = max(min, position)
	}
	left, err := s.position(ctx, min, waitOf(req.GetWaitMs()))
	if err != nil {
		return nil, err
	}
	if err := s.readable(ctx, req.GetOffset(), left, !req.GetLinearizable(), req.GetLinearizable()); err != nil {
		return nil, err
	}
	if err := s.still(ctx); err != nil {
		return nil, err
	}
	return s.fetched(who, req.GetOffset(), fetchBytes(req.GetMaxBytes()))
}

func (s *Server) fetched(who caller, off uint64, limit int) (*frame, error) {
	var r room
	batches, err := s.read(off, limit, &r)
	if err != nil {
		r.free()
		return nil, err
	}
	who.rates.HasRead(who.principal, size(batches))
	return fetchResponse(batches, r, s.log.Visible(), s.log.Lowest(), ""), nil
}

// fetchStream answers Node.FetchStream.
func (s *Server) fetchStream(stream grpc.ServerStream) error {
	in := new(frame)
	if err := stream.RecvMsg(in); err != nil {
		return err
	}
	var req nodev1.FetchRequest
	if err := in.decode(&req); err != nil {
		return err
	}
	if err := unaryOnly(req.GetLinearizable()); err != nil {
		return err
	}
	heartbeat := defaultHeartbeat
	if ms := req.GetHeartbeatMs(); ms != 0 {
		heartbeat = min(max(time.Duration(ms)*time.Millisecond, minHeartbeat), maxWait)
	}
	limit := fetchBytes(req.GetMaxBytes())
	who := callerOf(stream.Context())
	return s.tail(stream, func(ctx context.Context, snd *sender) error {
		left, err := s.position(ctx, req.GetMinPosition(), waitOf(req.GetWaitMs()))
		if err != nil {
			return err
		}
		off := req.GetOffset()
		if err := s.tailable(ctx, off, left); err != nil {
			return err
		}
		cluster := "" // named for a backup
		if req.GetForBackup() {
			if cluster = s.view().ClusterID; cluster == "" {
				return apierr.Draining{} // it may be about to join one
			}
		}
		for {
			if off >= s.log.Visible() {
				if err := s.waitFor(ctx, off, heartbeat); err != nil {
					return err
				}
			}
			visible, lowest := s.log.Visible(), s.log.Lowest()
			var batches []wireBatch
			var r room
			may := off < visible
			if may { // else, or while there is nothing it may have, a heartbeat
				if may, err = who.rates.WaitRead(ctx, who.principal, heartbeat); err != nil {
					return err
				}
			}
			if may {
				if batches, err = s.read(off, limit, &r); err != nil {
					r.free()
					return err
				}
				off = batches[len(batches)-1].next()
				visible = max(visible, off)
				who.rates.HasRead(who.principal, size(batches))
			}
			if err := snd.send(fetchResponse(batches, r, visible, lowest, cluster)); err != nil {
				return err
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
	})
}

// tail runs a stream that reads: headers go out at once, and its context is
// cancelled, after the message under way, with DRAINING when the server stops, and
// with PERMISSION_DENIED when its caller may not read any more.
func (s *Server) tail(stream grpc.ServerStream, work func(context.Context, *sender) error) error {
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(errEnded)
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	snd := newSender(stream)
	ending := func(why error) (cut bool) {
		cancel(why)
		return errors.As(why, new(apierr.PermissionDenied))
	}
	return s.supervise(snd, apierr.Overloaded{RetryAfter: time.Second}, ending, func() error {
		err := work(ctx, snd)
		if errors.Is(err, context.Canceled) {
			return context.Cause(ctx)
		}
		return err
	})
}
