package raftstore

import (
	"encoding/binary"
	"hash/crc32"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/internal/testutil"
)

// The checksums are put right before each decoder looks, or no bytes would get
// past them.

func FuzzCheckpoint(f *testing.F) {
	c := raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "a"}}}
	f.Add((&checkpoint{index: 5, term: 2, next: 7, bytes: 9, configIndex: 1}).encode(raft.EncodeConfiguration(c), []byte("state")))
	f.Add((&checkpoint{index: 1, reset: true}).encode(nil, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= checkpointHeader {
			binary.LittleEndian.PutUint32(b[checkpointHeader-8:], crc32.Checksum(b[checkpointHeader:], castagnoli))
			binary.LittleEndian.PutUint32(b[checkpointHeader-4:], crc32.Checksum(b[:checkpointHeader-4], castagnoli))
		}
		used := testutil.Allocated(func() {
			h, err := decodeHeader(b)
			if err != nil {
				return
			}
			require.LessOrEqual(t, h.stateLen, uint32(MaxStateBytes))
			require.LessOrEqual(t, h.configLen, uint32(MaxStateBytes))
			if config, state, err := h.decodeBody(b); err == nil {
				require.Len(t, state, int(h.stateLen))
				require.LessOrEqual(t, len(config.Servers), len(b))
			}
		})
		require.Less(t, used, uint64(1<<20+64*len(b)), "bytes allocated for %d", len(b))
	})
}

func FuzzStableSlot(f *testing.F) {
	f.Add(encodeSlot(3, map[string][]byte{keyCurrentTerm: {0, 0, 0, 0, 0, 0, 0, 7}, keyLastVoteCand: []byte("n1.00000001")}))
	f.Add(encodeSlot(0, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > slotBytes {
			b = b[:slotBytes]
		}
		b = append(b, make([]byte, slotBytes-len(b))...)
		binary.LittleEndian.PutUint32(b, slotMagic)
		binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(b[8:], castagnoli))
		seq, vals, err := decodeSlot(b)
		if err != nil {
			return
		}
		again := encodeSlot(seq, vals)
		require.NotNil(t, again, "what one slot holds fits one slot")
		_, same, err := decodeSlot(again)
		require.NoError(t, err)
		require.Len(t, same, len(vals))
		for k, v := range vals {
			require.Equal(t, append([]byte{}, v...), append([]byte{}, same[k]...))
		}
	})
}

func FuzzConfigurationMemory(f *testing.F) {
	f.Add(raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "b"}, {Suffrage: raft.Nonvoter, ID: "c"}}}))
	f.Add([]byte{0x81, 0xa7, 'S', 'e', 'r', 'v', 'e', 'r', 's', 0xdd, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0x81, 0xa7, 'S', 'e', 'r', 'v', 'e', 'r', 's', 0x91, 0x81, 0xa2, 'I', 'D', 0xdb, 0x7f, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		used := testutil.Allocated(func() { _, _ = DecodeConfiguration(b) })
		require.Less(t, used, uint64(1<<20+256*len(b)), "bytes allocated for %d", len(b))
	})
}
