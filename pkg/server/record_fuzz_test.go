package server_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/server"
)

// What passes the door can be decoded by everybody, holds what the client sent,
// and nothing of what only the log may say.
func FuzzStoredRecord(f *testing.F) {
	full, err := proto.Marshal(&logv1.Record{
		Value: []byte("v"), Offset: 1, Term: 2, Type: 3, Key: []byte("k"), Timestamp: 4, Headers: []*logv1.Header{{Key: "h"}},
	})
	require.NoError(f, err)
	for _, seed := range [][]byte{nil, full, {0x0a}, {0x13, 0x14}, {0x10, 0xff, 0x01, 0x38, 0x00}, {0x32, 0x03, 0x0a, 0x01, 0xff}} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, rec []byte) {
		raw := protowire.AppendBytes(nil, rec)
		stored, err := server.Stored(raw, 1, server.MaxRecordBytes, 77)
		if err != nil {
			return
		}
		var sent, kept logv1.Record
		require.NoError(t, proto.Unmarshal(rec, &sent), "accepted, but no client could read it")
		body, n := protowire.ConsumeBytes(stored)
		require.Equal(t, len(stored), n)
		require.NoError(t, proto.Unmarshal(body, &kept))
		sent.Offset, sent.Term, sent.Type = 0, 0, 0
		if sent.Timestamp == 0 {
			sent.Timestamp = 77
		}
		require.True(t, proto.Equal(&sent, &kept), "sent %v, kept %v", &sent, &kept)
		// The offset behind the stored bytes is the one everybody reads.
		out := protowire.AppendVarint(protowire.AppendTag(body, 2, protowire.VarintType), math.MaxUint64)
		require.NoError(t, proto.Unmarshal(out, &kept))
		require.Equal(t, uint64(math.MaxUint64), kept.Offset)
	})
}

func FuzzStoredBatch(f *testing.F) {
	f.Add([]byte{0, 1, 0x0a}, uint32(2))
	f.Fuzz(func(t *testing.T, records []byte, count uint32) {
		stored, err := server.Stored(records, count, server.MaxRecordBytes, 1)
		if err != nil {
			return
		}
		for range count {
			_, n := protowire.ConsumeBytes(stored)
			require.Positive(t, n)
			stored = stored[n:]
		}
		require.Empty(t, stored)
	})
}
