package forward

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/internal/testutil"
	"github.com/logd-io/logd/pkg/proxy/route"
)

// What the hand-written decoder makes of a node's answer is what protobuf does.
func FuzzFetchResponse(f *testing.F) {
	b, err := proto.Marshal(&nodev1.FetchResponse{
		Batches: []*nodev1.Batch{{FirstOffset: 3, Count: 2, Records: []byte{1, 'a', 0}}, {FirstOffset: 5, Count: 1, Records: []byte{0}}}, Visible: 9, Lowest: 1,
	})
	require.NoError(f, err)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var got []wireBatch
		var err error
		used := testutil.Allocated(func() {
			err = eachBatch(b, func(w wireBatch) error {
				got = append(got, w)
				rest := w.records
				for range w.count {
					var err error
					if _, rest, err = nextRecord(rest); err != nil {
						break
					}
				}
				return nil
			})
		})
		require.Less(t, used, uint64(1<<20+256*len(b)))
		if err != nil {
			return
		}
		var m nodev1.FetchResponse
		if proto.Unmarshal(b, &m) != nil {
			return // groups and the like, which are skipped here
		}
		require.Len(t, got, len(m.GetBatches()))
		for i, w := range m.GetBatches() {
			require.Equal(t, []any{w.GetFirstOffset(), w.GetCount(), string(w.GetRecords())}, []any{got[i].first, got[i].count, string(got[i].records)})
		}
		require.Equal(t, m.GetVisible(), visibleOf(b))
	})
}

// A record that the proxy takes is one that everybody can decode.
func FuzzRecordOfRequest(f *testing.F) {
	b, err := proto.Marshal(&logv1.ProduceRequest{Record: &logv1.Record{Value: []byte("v"), Headers: []*logv1.Header{{Key: "h"}}, Timestamp: 4}})
	require.NoError(f, err)
	f.Add(b)
	f.Add(append(b, b...))
	f.Fuzz(func(t *testing.T, b []byte) {
		rec, err := recordOf(b, 1<<16)
		if err != nil {
			return
		}
		var r, back logv1.Record
		require.NoError(t, proto.Unmarshal(rec, &r))
		var m logv1.ProduceRequest
		// A record in parts may be whole when they are put together, and a part not.
		if proto.Unmarshal(b, &m) == nil && m.GetRecord() != nil {
			require.True(t, proto.Equal(m.GetRecord(), &r))
		}
		// On its way out it gets its offset, and is otherwise as it was.
		out := appendConsume(nil, rec, 77)
		require.Len(t, out, consumeLen(len(rec), 77))
		var c logv1.ConsumeResponse
		require.NoError(t, proto.Unmarshal(out, &c))
		proto.Merge(&back, &r)
		back.Offset = 77
		require.True(t, proto.Equal(&back, c.GetRecord()))
	})
}

// one is a Tables of one table.
type one struct{ *route.Table }

func (o one) Load() *route.Table { return o.Table }

func FuzzPosition(f *testing.F) {
	const cluster = "0f0e0d0c-0b0a-4908-8706-050403020100"
	f.Add(cluster + ":17")
	f.Add(":")
	f.Add(cluster + ":-1")
	f.Fuzz(func(t *testing.T, value string) {
		fwd := &Forwarder{cfg: Config{Holder: one{route.New(route.Spec{ClusterID: cluster})}}}
		ctx := metadata.NewIncomingContext(context.Background(), metadata.Pairs(mdPosition, value))
		position, sent, err := fwd.clientPosition(ctx)
		if err != nil {
			return
		}
		require.True(t, sent)
		md := fwd.positionMD(position)
		ctx = metadata.NewIncomingContext(context.Background(), md)
		again, _, err := fwd.clientPosition(ctx)
		require.NoError(t, err)
		require.Equal(t, position, again)
	})
}
