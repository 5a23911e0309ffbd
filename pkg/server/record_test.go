package server_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/server"
	"github.com/logd-io/logd/pkg/tlsconf"
)

// rawBytes is a message in wire format that a test makes by hand.
type rawBytes []byte

type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }
func (rawCodec) Marshal(v any) ([]byte, error) {
	if b, ok := v.(rawBytes); ok {
		return b, nil
	}
	return proto.Marshal(v.(proto.Message))
}

func (rawCodec) Unmarshal(b []byte, v any) error {
	if r, ok := v.(*rawBytes); ok {
		*r = append(rawBytes(nil), b...)
		return nil
	}
	return proto.Unmarshal(b, v.(proto.Message))
}

// produceRaw sends a ProduceRequest whose record is rec.
func produceRaw(t *testing.T, cc *grpc.ClientConn, rec []byte) error {
	req := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), rec)
	var resp rawBytes
	return cc.Invoke(ctxOf(t), "/log.v1.Log/Produce", rawBytes(req), &resp, grpc.ForceCodec(rawCodec{}))
}

func TestRecordIsCheckedAtTheDoor(t *testing.T) {
	r := start(t)
	cc := r.dial(tlsconf.RoleClient, "app")
	tag := func(num protowire.Number, typ protowire.Type) []byte { return protowire.AppendTag(nil, num, typ) }
	header := func(key string) []byte {
		return protowire.AppendBytes(tag(6, protowire.BytesType), protowire.AppendString(tag(1, protowire.BytesType), key))
	}
	for name, tc := range map[string]struct {
		rec  []byte
		want string // in the refusal; empty: accepted
	}{
		"empty":                   {nil, ""},
		"unknown field":           {protowire.AppendString(tag(100, protowire.BytesType), "later"), ""},
		"header":                  {header("k"), ""},
		"truncated tag":           {[]byte{0x80}, "unexpected EOF"},
		"truncated value":         {[]byte{0x0a, 5, 'a'}, "unexpected EOF"},
		"field number zero":       {[]byte{0x02, 0}, "invalid field number"},
		"field number too large":  {[]byte{0x90, 0xc5, 0xc5, 0xdd, 0x30, 0}, "field number"},
		"value as varint":         {protowire.AppendVarint(tag(1, protowire.VarintType), 1), "field 1 has wire type 0"},
		"timestamp as bytes":      {protowire.AppendString(tag(7, protowire.BytesType), "x"), "field 7 has wire type 2"},
		"offset as bytes":         {protowire.AppendString(tag(2, protowire.BytesType), "x"), "field 2 has wire type 2"},
		"headers as varint":       {protowire.AppendVarint(tag(6, protowire.VarintType), 1), "field 6 has wire type 0"},
		"group":                   {append(tag(9, protowire.StartGroupType), tag(9, protowire.EndGroupType)...), "group"},
		"end of a group":          {tag(9, protowire.EndGroupType), "group"},
		"header key is not UTF-8": {header("\xff"), "UTF-8"},
		"header is cut off":       {protowire.AppendBytes(tag(6, protowire.BytesType), []byte{0x0a, 9}), "unexpected EOF"},
		"varint of eleven bytes":  {append(tag(7, protowire.VarintType), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1), "overflow"},
	} {
		t.Run(name, func(t *testing.T) {
			before := r.count()
			err := produceRaw(t, cc, tc.rec)
			if tc.want == "" {
				require.NoError(t, err)
				require.Equal(t, before+1, r.count())
				return
			}
			info, _ := apierr.From(err)
			require.Equal(t, apierr.ReasonInvalid, info.Reason, "%v", err)
			require.Equal(t, "record", info.Metadata[apierr.KeyField])
			require.Contains(t, info.Message, tc.want)
			require.Equal(t, before, r.count(), "a malformed record was submitted")
		})
	}
}

func TestStoredRecordKeepsBytesAndGetsTimestamp(t *testing.T) {
	r := start(t)
	cc := r.dial(tlsconf.RoleClient, "app")
	stored := func(rec []byte) *logv1.Record {
		require.NoError(t, produceRaw(t, cc, rec))
		b, n := protowire.ConsumeBytes(r.last().Records)
		require.Equal(t, len(r.last().Records), n)
		var got logv1.Record
		require.NoError(t, proto.Unmarshal(b, &got))
		return &got
	}
	before := time.Now().UnixNano()
	got := stored(nil)
	require.GreaterOrEqual(t, got.Timestamp, before, "absent timestamp")

	mine, err := proto.Marshal(&logv1.Record{Value: []byte("v"), Key: []byte("k"), Timestamp: 5, Headers: []*logv1.Header{{Key: "h", Value: []byte("x")}}})
	require.NoError(t, err)
	require.NoError(t, produceRaw(t, cc, mine))
	require.Equal(t, protowire.AppendBytes(nil, mine), r.last().Records, "an intact record is stored as it came")

	zero := protowire.AppendVarint(protowire.AppendTag(nil, 7, protowire.VarintType), 0)
	require.GreaterOrEqual(t, stored(zero).Timestamp, before, "a timestamp of zero is none")

	lies, err := proto.Marshal(&logv1.Record{Value: []byte("v"), Offset: 1 << 63, Term: 2, Type: 3, Timestamp: -4})
	require.NoError(t, err)
	got = stored(append(lies, 0x10, 7, 0x52, 1, 'u')) // offset twice, and an unknown field
	require.Zero(t, got.Offset)
	require.Zero(t, got.Term)
	require.Zero(t, got.Type)
	require.Equal(t, int64(-4), got.Timestamp)
	require.Equal(t, "v", string(got.Value))
	require.Equal(t, []byte{0x52, 1, 'u'}, []byte(got.ProtoReflect().GetUnknown()))
}

func TestRecordInPartsIsMerged(t *testing.T) {
	r := start(t)
	cc := r.dial(tlsconf.RoleClient, "app")
	part := func(m proto.Message) []byte {
		b, err := proto.Marshal(m)
		require.NoError(t, err)
		return protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), b)
	}
	req := append(part(&logv1.Record{Value: []byte("a")}), part(&logv1.Record{Key: []byte("b"), Timestamp: 3})...)
	var resp rawBytes
	require.NoError(t, cc.Invoke(ctxOf(t), "/log.v1.Log/Produce", rawBytes(req), &resp, grpc.ForceCodec(rawCodec{})))
	rec, _ := protowire.ConsumeBytes(r.last().Records)
	var got logv1.Record
	require.NoError(t, proto.Unmarshal(rec, &got))
	require.Equal(t, "a", string(got.Value))
	require.Equal(t, "b", string(got.Key))
}

func TestRecordSizeLimit(t *testing.T) {
	r := start(t)
	c := r.client()
	// The message around the value: tag and three bytes of length.
	fits := strings.Repeat("x", server.MaxRecordBytes-4)
	_, err := c.Produce(ctxOf(t), &logv1.ProduceRequest{Record: &logv1.Record{Value: []byte(fits)}})
	require.NoError(t, err)
	for name, tc := range map[string]struct {
		size int
		code codes.Code
	}{
		"one byte over":         {len(fits) + 1, codes.InvalidArgument},
		"three times the limit": {3 << 20, codes.InvalidArgument},
		// gRPC ends the call before it has read the message.
		"beyond a message": {5 << 20, codes.ResourceExhausted},
	} {
		t.Run(name, func(t *testing.T) {
			before := r.count()
			_, err := c.Produce(ctxOf(t), &logv1.ProduceRequest{Record: &logv1.Record{Value: make([]byte, tc.size)}})
			require.Equal(t, tc.code, status.Code(err), "%v", err)
			require.Equal(t, before, r.count())
		})
	}
	resp, err := c.Consume(ctxOf(t), &logv1.ConsumeRequest{})
	require.NoError(t, err)
	require.Equal(t, fits, string(resp.Record.Value))
}

var forceRaw = grpc.ForceCodec(rawCodec{})
