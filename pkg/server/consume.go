package server

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
)

// consumeBytes is how much a ConsumeStream reads at a time.
const consumeBytes = 256 << 10

// consume answers Log.Consume.
func (s *Server) consume(ctx context.Context, in []byte) (*frame, error) {
	var req logv1.ConsumeRequest
	if err := proto.Unmarshal(in, &req); err != nil {
		return nil, malformed("", err)
	}
	who := callerOf(ctx)
	if err := who.rates.MayRead(who.principal); err != nil {
		return nil, err
	}
	off := req.GetOffset()
	if req.GetLinearizable() {
		bounded, cancel := linearTime(ctx)
		defer cancel()
		position, err := s.linearize(bounded)
		if err != nil {
			return nil, err
		}
		if _, err = s.position(ctx, position, linearWait); err != nil {
			return nil, err
		}
	}
	if err := s.readable(ctx, off, defaultWait, false, req.GetLinearizable()); err != nil {
		return nil, err
	}
	if err := s.still(ctx); err != nil {
		return nil, err
	}
	var r room
	defer r.free() // the response is a copy
	batches, err := s.read(off, 1, &r)
	if err != nil {
		return nil, err
	}
	rec, _, err := splitRecord(batches[0].records)
	if err != nil {
		return nil, err
	}
	who.rates.HasRead(who.principal, len(rec))
	return consumeResponse(rec, off), nil
}

// consumeStream answers Log.ConsumeStream.
func (s *Server) consumeStream(stream grpc.ServerStream) error {
	in := new(frame)
	if err := stream.RecvMsg(in); err != nil {
		return err
	}
	var req logv1.ConsumeRequest
	if err := in.decode(&req); err != nil {
		return err
	}
	if err := unaryOnly(req.GetLinearizable()); err != nil {
		return err
	}
	who := callerOf(stream.Context())
	return s.tail(stream, func(ctx context.Context, snd *sender) error {
		off := req.GetOffset()
		if err := s.tailable(ctx, off, defaultWait); err != nil {
			return err
		}
		for {
			err := s.log.Wait(ctx, off)
			if err != nil {
				return err
			}
			if _, err = who.rates.WaitRead(ctx, who.principal, 0); err != nil {
				return err
			}
			if off, err = s.sendFrom(ctx, snd, off); err != nil {
				return err
			}
		}
	})
}

// sendFrom sends some of the records from off on, which exists, and gives the offset
// behind them.
func (s *Server) sendFrom(ctx context.Context, snd *sender, off uint64) (next uint64, err error) {
	var r room
	defer r.free() // what is sent is a copy
	batches, err := s.read(off, consumeBytes, &r)
	if err != nil {
		return off, err
	}
	who := callerOf(snd.stream.Context())
	who.rates.HasRead(who.principal, size(batches))
	for _, b := range batches {
		if err := sendRecords(ctx, snd, b); err != nil {
			return off, err
		}
		off = b.next()
	}
	return off, nil
}

func sendRecords(ctx context.Context, snd *sender, b wireBatch) error {
	for off, records := b.first, b.records; off < b.next(); off++ {
		rec, rest, err := splitRecord(records)
		if err != nil {
			return err
		}
		if err := snd.send(consumeResponse(rec, off)); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		records = rest
	}
	return nil
}
