package server

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// frame is a message in its wire format. The hot methods take and give frames,
// so that records are neither decoded nor encoded on their way through.
type frame struct {
	// in is a received message; it belongs to the receiver.
	in []byte
	// out is a message to send, in pieces that nobody changes any more, unless they
	// lie in room.
	out [][]byte
	// room, which may be nil, is where pieces of out lie. It is gRPC's from the
	// sending on, which is done once, and free for the next read when all is written.
	room mem.Buffer
}

// decode is the frame as a message.
func (f *frame) decode(m proto.Message) error {
	if err := proto.Unmarshal(f.in, m); err != nil {
		return malformed("", err)
	}
	return nil
}

// codec is gRPC's proto codec that also knows frames.
type codec struct{}

var _ encoding.CodecV2 = codec{}

func (codec) Name() string { return "proto" }

func (codec) Marshal(v any) (mem.BufferSlice, error) {
	switch m := v.(type) {
	case *frame:
		s := make(mem.BufferSlice, len(m.out), len(m.out)+1)
		for i, piece := range m.out {
			s[i] = mem.SliceBuffer(piece)
		}
		if m.room != nil {
			s = append(s, m.room) // empty, and last: freed when all before it is written
		}
		return s, nil
	case proto.Message:
		b, err := proto.Marshal(m)
		if err != nil {
			return nil, err
		}
		return mem.BufferSlice{mem.SliceBuffer(b)}, nil
	}
	return nil, fmt.Errorf("marshal %T: not a protobuf message", v)
}

func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	switch m := v.(type) {
	case *frame:
		m.in = data.Materialize() // a copy: gRPC reuses its buffers
		return nil
	case proto.Message:
		buf := data.MaterializeToBuffer(mem.DefaultBufferPool())
		defer buf.Free()
		return proto.Unmarshal(buf.ReadOnlyData(), m)
	}
	return fmt.Errorf("unmarshal into %T: not a protobuf message", v)
}
