package forward_test

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/proxy/forward"
)

func TestProduce(t *testing.T) {
	c := newCluster(t, "a", "b")
	c.lead("a")
	p := newProxy(t, c, func(cfg *forward.Config) {
		cfg.Principal = func(context.Context) (string, error) { return "al ice%", nil }
	})
	for i := range 10 {
		var hdr metadata.MD
		resp, err := p.Produce(ctxFor(t, 5*time.Second), rec(fmt.Sprint("r", i)), grpc.Header(&hdr))
		require.NoError(t, err)
		require.EqualValues(t, i, resp.Offset)
		require.Equal(t, []string{fmt.Sprintf("%s:%d", clusterID, i+1)}, hdr["logd-position"])
	}
	require.Equal(t, []string{"r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9"}, c.values())
	require.Equal(t, []string{"al%20ice%25"}, c.nodes["a"].mds[0]["logd-original-principal"])
	require.Equal(t, []string{clusterID}, c.nodes["a"].mds[0]["logd-cluster"])
	require.Equal(t, 1, c.nodes["a"].streams)
}

func TestProduceBatchesWhatIsWaiting(t *testing.T) {
	c := newCluster(t, "a")
	c.lead("a")
	c.nodes["a"].freeze()
	p := newProxy(t, c, nil)
	s, err := p.ProduceStream(ctxFor(t, 20*time.Second))
	require.NoError(t, err)
	const n = 1000
	for i := range n {
		require.NoError(t, s.Send(rec(strconv.Itoa(i))))
	}
	require.NoError(t, s.CloseSend())
	c.nodes["a"].thaw()
	for i := range n {
		resp, err := s.Recv()
		require.NoError(t, err)
		require.EqualValues(t, i, resp.Offset)
	}
	_, err = s.Recv()
	require.ErrorIs(t, err, io.EOF)
	require.Less(t, len(c.batches), n/2)
	for i, v := range c.values() {
		require.Equal(t, strconv.Itoa(i), v)
	}
}

// rawCodec sends and receives bytes, to send what no generated code would.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

func (rawCodec) Unmarshal(b mem.BufferSlice, v any) error {
	*v.(*[]byte) = b.Materialize()
	return nil
}

var _ encoding.CodecV2 = rawCodec{}

func TestProduceContent(t *testing.T) {
	c := newCluster(t, "a")
	c.lead("a")
	p := newProxy(t, c, func(cfg *forward.Config) { cfg.MaxRecordBytes = 1000 })
	send := func(req []byte) error {
		var reply []byte
		return p.conn.Invoke(ctxFor(t, 5*time.Second), "/log.v1.Log/Produce", req, &reply, grpc.ForceCodecV2(rawCodec{}))
	}
	field := func(num protowire.Number, b []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), b)
	}
	badKey := field(1, field(6, field(1, []byte{0xff, 0xfe})))
	for name, tc := range map[string]struct {
		req   []byte
		field string // of the refusal; "-": accepted
		want  string // the value stored
	}{
		"empty record":               {field(1, nil), "-", ""},
		"no record":                  {nil, "-", ""},
		"record in two pieces":       {append(field(1, field(1, []byte("x"))), field(1, field(5, []byte("k")))...), "-", "x"},
		"largest record":             {field(1, field(1, []byte(strings.Repeat("x", 997)))), "-", strings.Repeat("x", 997)},
		"too large":                  {field(1, field(1, []byte(strings.Repeat("x", 998)))), "record", ""},
		"unknown fields":             {append(field(1, append(field(1, []byte("u")), field(99, []byte("z"))...)), field(77, []byte("q"))...), "-", "u"},
		"truncated request":          {[]byte{0x0a, 0x05, 0x0a}, "record", ""},
		"garbage":                    {[]byte{0xff, 0xff, 0xff}, "", ""},
		"truncated value":            {field(1, []byte{0x0a, 0x05, 'x'}), "record", ""},
		"value of a wrong wire type": {field(1, []byte{0x08, 0x05}), "record", ""},
		"malformed header":           {field(1, field(6, []byte{0x0a, 0x09})), "record.headers", ""},
		"header key not UTF-8":       {badKey, "record.headers.key", ""},
		"unfinished group":           {field(1, []byte{0x53}), "record", ""},
		"group":                      {field(1, []byte{0x53, 0x54}), "record", ""},
	} {
		t.Run(name, func(t *testing.T) {
			before := len(c.values())
			err := send(tc.req)
			if tc.field == "-" {
				require.NoError(t, err)
				vs := c.values()
				require.Len(t, vs, before+1)
				require.Equal(t, tc.want, vs[before])
				return
			}
			requireReason(t, apierr.ReasonInvalid, err)
			info, _ := apierr.From(err)
			require.Equal(t, tc.field, info.Metadata[apierr.KeyField])
			require.Len(t, c.values(), before)
		})
	}
}

// One record a leader refuses does not fail those it was coalesced with.
func TestRefusedRecordFailsAlone(t *testing.T) {
	c := newCluster(t, "a")
	c.lead("a")
	n := c.nodes["a"]
	n.onAppend = func(r *nodev1.AppendRequest) error {
		if strings.Contains(string(r.Records), "bad") {
			return apierr.Invalid{Field: "record", Why: "bad"}
		}
		return nil
	}
	n.freeze()
	p := newProxy(t, c, nil)
	errs := map[string]<-chan error{}
	for i := range 50 {
		v := fmt.Sprint("good", i)
		if i%17 == 3 {
			v = fmt.Sprint("bad", i)
		}
		errs[v] = produceAsync(t, p, v)
	}
	n.thaw()
	good := 0
	for v, got := range errs {
		if err := <-got; strings.HasPrefix(v, "bad") {
			requireReason(t, apierr.ReasonInvalid, err)
		} else {
			require.NoError(t, err)
			good++
		}
	}
	require.Len(t, c.values(), good)
}

func TestRequestIDTravelsAlone(t *testing.T) {
	c := newCluster(t, "a")
	c.lead("a")
	p1, p2 := newProxy(t, c, nil), newProxy(t, c, nil)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			_, err := p1.Produce(ctxFor(t, 10*time.Second, "logd-request-id", fmt.Sprint("id", i)), rec(fmt.Sprint(i)))
			require.NoError(t, err)
		})
	}
	wg.Wait()
	for _, n := range c.batches {
		require.Equal(t, 1, n)
	}
	vs := c.values()
	require.Len(t, vs, 20)
	for off, v := range vs {
		resp, err := p2.Produce(ctxFor(t, 10*time.Second, "logd-request-id", "id"+v), rec(v))
		require.NoError(t, err)
		require.EqualValues(t, off, resp.Offset)
	}
	require.Len(t, c.values(), 20)

	_, err := p1.Produce(ctxFor(t, 10*time.Second, "logd-request-id", strings.Repeat("x", 513)), rec("x"))
	requireReason(t, apierr.ReasonInvalid, err)
	s, err := p1.ProduceStream(ctxFor(t, 10*time.Second, "logd-request-id", "x"))
	require.NoError(t, err)
	_, err = s.Recv()
	requireReason(t, apierr.ReasonInvalid, err)
}

func TestGetServers(t *testing.T) {
	c := newCluster(t, "a", "b")
	c.lead("b")
	resp, err := newProxy(t, c, nil).GetServers(ctxFor(t, 5*time.Second), &logv1.GetServersRequest{})
	require.NoError(t, err)
	require.True(t, proto.Equal(&logv1.GetServersResponse{Servers: []*logv1.Server{{Id: "proxy-0", RpcAddr: "127.0.0.1:8410", IsLeader: true}}}, resp))
	resp, err = newProxy(t, c, func(cfg *forward.Config) { cfg.GetServers = forward.ServersCluster }).GetServers(ctxFor(t, 5*time.Second), &logv1.GetServersRequest{})
	require.NoError(t, err)
	require.True(t, proto.Equal(&logv1.GetServersResponse{Servers: []*logv1.Server{
		{Id: "a", RpcAddr: "a:8400"}, {Id: "b", RpcAddr: "b:8400", IsLeader: true}}}, resp))
}
