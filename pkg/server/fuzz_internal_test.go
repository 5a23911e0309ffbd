package server

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/internal/testutil"
)

// The hand-written decoder takes less than protobuf does, and understands the
// same.
func FuzzAppendRequest(f *testing.F) {
	for _, r := range []*nodev1.AppendRequest{
		{Count: 1, Records: []byte{1, 'a'}},
		{ProducerId: make([]byte, 16), Epoch: 3, FirstSequence: 4, Count: 2, Records: []byte{0, 0}, RequestKey: nil},
		{ProducerId: []byte("0123456789abcdef"), Count: 1, Records: []byte{0}, RequestKey: []byte("fedcba9876543210")},
	} {
		b, err := proto.Marshal(r)
		require.NoError(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r appendRequest
		var err error
		require.Less(t, testutil.Allocated(func() { r, err = parseAppend(b) }), uint64(1<<20+16*len(b)))
		if err != nil {
			return
		}
		var m nodev1.AppendRequest
		require.NoError(t, proto.Unmarshal(b, &m), "accepted, but it is no message")
		id := func(have [16]byte) []byte {
			if have == [16]byte{} {
				return nil
			}
			return have[:]
		}
		require.Equal(t, append([]byte{}, m.GetProducerId()...), append([]byte{}, id(r.producer)...))
		require.Equal(t, append([]byte{}, m.GetRequestKey()...), append([]byte{}, id(r.key)...))
		require.Equal(t, append([]byte{}, m.GetRecords()...), append([]byte{}, r.records...))
		require.Equal(t, []any{m.GetEpoch(), m.GetFirstSequence(), m.GetCount()}, []any{r.epoch, r.firstSeq, r.count})
	})
}

func FuzzProduceRequest(f *testing.F) {
	b, err := proto.Marshal(&logv1.ProduceRequest{Record: &logv1.Record{Value: []byte("v"), Key: []byte("k")}})
	require.NoError(f, err)
	f.Add(b)
	f.Add(append(b, b...))
	f.Fuzz(func(t *testing.T, b []byte) {
		var rec []byte
		var err error
		require.Less(t, testutil.Allocated(func() { rec, err = produceRecord(b) }), uint64(1<<20+16*len(b)*max(len(b), 1)))
		if err != nil {
			return
		}
		var m logv1.ProduceRequest
		if proto.Unmarshal(b, &m) != nil {
			return // the record itself is checked by who takes it
		}
		var r logv1.Record
		require.NoError(t, proto.Unmarshal(rec, &r))
		want := m.GetRecord()
		if want == nil {
			want = &logv1.Record{}
		}
		require.True(t, proto.Equal(want, &r), "%v, not %v", &r, want)
	})
}
