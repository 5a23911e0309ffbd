package forward

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// ServerCodec is the option the downstream gRPC server must be made with. It
// hands this package's methods their messages as bytes, and every other message
// to protobuf.
func ServerCodec() grpc.ServerOption { return grpc.ForceServerCodecV2(newCodec()) }

// message is a received message as bytes. Whoever it is unmarshalled into frees
// buf once.
type message struct {
	buf mem.Buffer
}

func (m *message) bytes() []byte { return m.buf.ReadOnlyData() }

func (m *message) free() {
	if m.buf != nil {
		m.buf.Free()
		m.buf = nil
	}
}

// outgoing is a message that knows its bytes. encoded is called once a send, and
// what it returns is freed by gRPC.
type outgoing interface {
	encoded() mem.BufferSlice
}

// codec moves message and outgoing values as they are, and leaves the rest to
// protobuf. Its name is protobuf's, since the bytes are.
type codec struct {
	fallback encoding.CodecV2
}

func newCodec() codec { return codec{fallback: encoding.GetCodecV2(proto.Name)} }

func (codec) Name() string { return proto.Name }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if out, ok := v.(outgoing); ok {
		return out.encoded(), nil
	}
	return c.fallback.Marshal(v)
}

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	if m, ok := v.(*message); ok {
		m.free()
		m.buf = data.MaterializeToBuffer(&fetchBuffers)
		return nil
	}
	return c.fallback.Unmarshal(data, v)
}
