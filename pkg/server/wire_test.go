package server_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/logd-io/logd/pkg/tlsconf"
)

// book is the service of "Distributed Services with Go", written down here field
// by field and not taken from our .proto.
type book struct{ file protoreflect.FileDescriptor }

func theBook(t *testing.T) book {
	type field struct {
		name string
		num  int32
		typ  descriptorpb.FieldDescriptorProto_Type
		msg  string
		many bool
	}
	const (
		bytesT = descriptorpb.FieldDescriptorProto_TYPE_BYTES
		u64    = descriptorpb.FieldDescriptorProto_TYPE_UINT64
		u32    = descriptorpb.FieldDescriptorProto_TYPE_UINT32
		str    = descriptorpb.FieldDescriptorProto_TYPE_STRING
		boolT  = descriptorpb.FieldDescriptorProto_TYPE_BOOL
		msgT   = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE
	)
	file := &descriptorpb.FileDescriptorProto{
		Name: proto.String("the/book.proto"), Package: proto.String("log.v1"), Syntax: proto.String("proto3"),
	}
	for _, m := range []struct {
		name   string
		fields []field
	}{
		{"Record", []field{{"value", 1, bytesT, "", false}, {"offset", 2, u64, "", false}, {"term", 3, u64, "", false}, {"type", 4, u32, "", false}}},
		{"ProduceRequest", []field{{"record", 1, msgT, "Record", false}}},
		{"ProduceResponse", []field{{"offset", 1, u64, "", false}}},
		{"ConsumeRequest", []field{{"offset", 1, u64, "", false}}},
		{"ConsumeResponse", []field{{"record", 2, msgT, "Record", false}}},
		{"GetServersRequest", nil},
		{"GetServersResponse", []field{{"servers", 1, msgT, "Server", true}}},
		{"Server", []field{{"id", 1, str, "", false}, {"rpc_addr", 2, str, "", false}, {"is_leader", 3, boolT, "", false}}},
	} {
		d := &descriptorpb.DescriptorProto{Name: proto.String(m.name)}
		for _, f := range m.fields {
			label := descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL
			if f.many {
				label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED
			}
			fd := &descriptorpb.FieldDescriptorProto{
				Name: proto.String(f.name), Number: proto.Int32(f.num), Type: f.typ.Enum(), Label: label.Enum(),
			}
			if f.msg != "" {
				fd.TypeName = proto.String(".log.v1." + f.msg)
			}
			d.Field = append(d.Field, fd)
		}
		file.MessageType = append(file.MessageType, d)
	}
	fd, err := protodesc.NewFile(file, nil)
	require.NoError(t, err)
	return book{fd}
}

func (b book) new(name string) *dynamicpb.Message {
	return dynamicpb.NewMessage(b.file.Messages().ByName(protoreflect.Name(name)))
}

func set(m *dynamicpb.Message, field string, v any) {
	m.Set(m.Descriptor().Fields().ByName(protoreflect.Name(field)), protoreflect.ValueOf(v))
}

func get(m protoreflect.Message, field string) protoreflect.Value {
	return m.Get(m.Descriptor().Fields().ByName(protoreflect.Name(field)))
}

func (b book) produce(value string, offset uint64) *dynamicpb.Message {
	rec := b.new("Record")
	set(rec, "value", []byte(value))
	if offset != 0 {
		set(rec, "offset", offset)
		set(rec, "term", uint64(99))
		set(rec, "type", uint32(7))
	}
	req := b.new("ProduceRequest")
	set(req, "record", rec.ProtoReflect())
	return req
}

func (b book) consume(offset uint64) *dynamicpb.Message {
	req := b.new("ConsumeRequest")
	set(req, "offset", offset)
	return req
}

func (b book) checkRecord(t *testing.T, resp *dynamicpb.Message, value string, offset uint64) {
	t.Helper()
	rec := get(resp.ProtoReflect(), "record").Message()
	require.Equal(t, value, string(get(rec, "value").Bytes()))
	require.Equal(t, offset, get(rec, "offset").Uint())
	require.Zero(t, get(rec, "term").Uint(), "a client's term leaked")
	require.Zero(t, get(rec, "type").Uint(), "a client's type leaked")
}

func TestBookClientRunsUnchanged(t *testing.T) {
	r := start(t)
	cc := r.dial(tlsconf.RoleClient, "book")
	b := theBook(t)
	ctx := ctxOf(t)

	// Unary. The second record lies about offset, term and type.
	for i, req := range []*dynamicpb.Message{b.produce("first", 0), b.produce("second", 4711)} {
		resp := b.new("ProduceResponse")
		require.NoError(t, cc.Invoke(ctx, "/log.v1.Log/Produce", req, resp))
		require.Equal(t, uint64(i), get(resp.ProtoReflect(), "offset").Uint())
	}
	for i, want := range []string{"first", "second"} {
		resp := b.new("ConsumeResponse")
		require.NoError(t, cc.Invoke(ctx, "/log.v1.Log/Consume", b.consume(uint64(i)), resp))
		b.checkRecord(t, resp, want, uint64(i))
	}

	// Past the end: a status with the book's sentence.
	err := cc.Invoke(ctx, "/log.v1.Log/Consume", b.consume(2), b.new("ConsumeResponse"))
	require.Equal(t, codes.OutOfRange, status.Code(err))
	require.Contains(t, status.Convert(err).Proto().String(), "The requested offset is outside the log's range: 2")

	// Streams.
	ps, err := cc.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/log.v1.Log/ProduceStream")
	require.NoError(t, err)
	for i, v := range []string{"third", "fourth"} {
		require.NoError(t, ps.SendMsg(b.produce(v, uint64(i)*5)))
		resp := b.new("ProduceResponse")
		require.NoError(t, ps.RecvMsg(resp))
		require.Equal(t, uint64(i+2), get(resp.ProtoReflect(), "offset").Uint())
	}
	require.NoError(t, ps.CloseSend())
	cs, err := cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/log.v1.Log/ConsumeStream")
	require.NoError(t, err)
	require.NoError(t, cs.SendMsg(b.consume(0)))
	require.NoError(t, cs.CloseSend())
	for i, want := range []string{"first", "second", "third", "fourth"} {
		resp := b.new("ConsumeResponse")
		require.NoError(t, cs.RecvMsg(resp))
		b.checkRecord(t, resp, want, uint64(i))
	}
	// It waits at the end of the log, and goes on when there is more.
	require.NoError(t, cc.Invoke(ctx, "/log.v1.Log/Produce", b.produce("fifth", 0), b.new("ProduceResponse")))
	resp := b.new("ConsumeResponse")
	require.NoError(t, cs.RecvMsg(resp))
	b.checkRecord(t, resp, "fifth", 4)

	servers := b.new("GetServersResponse")
	require.NoError(t, cc.Invoke(ctx, "/log.v1.Log/GetServers", b.new("GetServersRequest"), servers))
	list := get(servers.ProtoReflect(), "servers").List()
	require.Equal(t, 2, list.Len())
	one := list.Get(0).Message()
	require.Equal(t, selfID, get(one, "id").String())
	require.Equal(t, "one:1", get(one, "rpc_addr").String())
	require.True(t, get(one, "is_leader").Bool())
	require.False(t, get(list.Get(1).Message(), "is_leader").Bool())
}
