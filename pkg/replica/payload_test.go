package replica

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
)

// records frames messages as a producer does.
func records(msgs ...string) []byte {
	var b []byte
	for _, m := range msgs {
		b = append(binary.AppendUvarint(b, uint64(len(m))), m...)
	}
	return b
}

func proposalOf(batches ...Batch) *proposal {
	b := newBatcher(nil, nil, 1<<30, nil, nil, newMetrics(nil))
	for _, x := range batches {
		p, err := b.submit(x)
		if err != nil {
			panic(err)
		}
		_ = p
	}
	pr, _ := b.take()
	return pr
}

func decodeAll(t testing.TB, payload []byte) []header {
	var hs []header
	require.NoError(t, decodeData(payload, func(h *header) { hs = append(hs, *h) }))
	return hs
}

func TestPayloadRoundTrip(t *testing.T) {
	one := Batch{Producer: [16]byte{1}, Owner: 7, Epoch: 3, FirstSeq: 9, Count: 2, Records: records("a", "bc"), Timestamp: 11}
	keyed := Batch{Key: [16]byte{5}, Count: 1, Records: records("k"), Timestamp: 12}
	both := Batch{Producer: [16]byte{2}, Key: [16]byte{6}, Count: 1, Records: records(""), Timestamp: -1}
	payload := proposalOf(one, keyed, both).encode()
	hs := decodeAll(t, payload)
	require.Len(t, hs, 3)
	for i, want := range []Batch{one, keyed, both} {
		h := hs[i]
		require.Equal(t, want, Batch{Producer: h.producer, Owner: h.owner, Epoch: h.epoch, FirstSeq: h.firstSeq,
			Count: h.count, Key: h.key, Records: payload[h.pos : h.pos+h.len], Timestamp: h.timestamp})
	}
}

func TestAnonymousNeighboursAreMerged(t *testing.T) {
	anon := func(ts int64, msgs ...string) Batch {
		return Batch{Count: uint32(len(msgs)), Records: records(msgs...), Timestamp: ts}
	}
	pr := proposalOf(anon(5, "a"), anon(9, "b", "c"), Batch{Producer: [16]byte{1}, Count: 1, Records: records("p")},
		anon(1, "d"), Batch{Key: [16]byte{1}, Count: 1, Records: records("k")}, anon(2, "e"))
	require.Equal(t, []int{2, 1, 1, 1, 1}, pr.groups)
	payload := pr.encode()
	hs := decodeAll(t, payload)
	require.Len(t, hs, 5)
	require.Equal(t, uint32(3), hs[0].count)
	require.Equal(t, int64(9), hs[0].timestamp, "a merged batch is as new as its newest record")
	require.Equal(t, records("a", "b", "c"), payload[hs[0].pos:hs[0].pos+hs[0].len])

	pr.decide([]outcome{{offset: 10}, {offset: 13}, {verdict: duplicate, offset: 2}, {offset: 14}, {offset: 15}})
	want := []uint64{10, 11, 13, 2, 14, 15}
	for i, p := range pr.waiting {
		res, err := p.Result()
		require.NoError(t, err)
		require.Equal(t, want[i], res.FirstOffset, i)
		require.Equal(t, i == 3, res.Duplicate)
	}
}

func TestEntryStaysBelowItsLimitUnlessOneBatchIsLarger(t *testing.T) {
	big := Batch{Count: 1, Records: records(string(make([]byte, EntryBytes/2)))}
	huge := Batch{Count: 1, Records: records(string(make([]byte, EntryBytes*2)))}
	b := newBatcher(nil, nil, 1<<30, nil, nil, newMetrics(nil))
	for _, x := range []Batch{big, big, big, huge, big} {
		_, err := b.submit(x)
		require.NoError(t, err)
	}
	var sizes []int
	for more := true; more; {
		var pr *proposal
		pr, more = b.take()
		sizes = append(sizes, len(pr.waiting))
	}
	require.Equal(t, []int{1, 1, 1, 1, 1}, sizes)
}

func TestMalformedRecordsAreRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		records []byte
		count   uint32
		field   string
	}{
		"none":             {nil, 0, "count"},
		"fewer than said":  {records("a"), 2, "records"},
		"more than said":   {records("a", "b"), 1, "records"},
		"length too large": {[]byte{5, 'a'}, 1, "records"},
		"length cut":       {[]byte{0x80}, 1, "records"},
		"length overflows": {bytes.Repeat([]byte{0xff}, 11), 1, "records"},
	} {
		t.Run(name, func(t *testing.T) {
			var invalid *InvalidError
			require.ErrorAs(t, checkRecords(tc.records, tc.count), &invalid)
			require.Equal(t, tc.field, invalid.Field)
		})
	}
	require.NoError(t, checkRecords(records("", "x"), 2))
}

func TestEncodingAProposalAllocatesOnce(t *testing.T) {
	batches := make([]Batch, 64)
	for i := range batches {
		batches[i] = Batch{Producer: [16]byte{byte(i), 1}, Count: 1, Records: records("some record")}
	}
	pr := proposalOf(batches...)
	require.LessOrEqual(t, testing.AllocsPerRun(20, func() {
		for i, p := range pr.waiting {
			p.batch.Records = batches[i].Records
		}
		pr.encode()
	}), 1.0)
}

func FuzzDecodeData(f *testing.F) {
	f.Add(proposalOf(Batch{Count: 1, Records: records("a")}, Batch{Key: [16]byte{1}, Count: 1, Records: records("b")}).encode())
	f.Add(encodeLowest(7))
	f.Add(encodeCluster("00000000-0000-4000-8000-000000000000"))
	f.Add(encodeSucceed("00000000-0000-4000-8000-000000000000", "00000000-0000-4000-8000-000000000001"))
	f.Add([]byte{kindData, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		var end uint32
		err := decodeData(b, func(h *header) {
			if h.pos < end || uint64(h.pos)+uint64(h.len) > uint64(len(b)) || h.count == 0 || h.count > h.len {
				t.Fatalf("header out of bounds: %+v of %d", h, len(b))
			}
			end = h.pos + h.len
		})
		if err == nil && int(end) != len(b) {
			t.Fatalf("%d of %d bytes accounted for", end, len(b))
		}
		if c, err := decodeControl(b); err == nil {
			again := encodeLowest(c.lowest)
			if c.cluster != "" {
				again = encodeCluster(c.cluster)
			}
			if c.former != "" {
				again = encodeSucceed(c.former, c.cluster)
			}
			if !bytes.Equal(again, b) {
				t.Fatalf("%x decodes to %+v, which encodes to %x", b, c, again)
			}
		}
	})
}

func FuzzDecodeMachine(f *testing.F) {
	m := newMachine()
	m.cluster = "00000000-0000-4000-8000-000000000000"
	for i := range 4 {
		m.decide(&header{producer: [16]byte{byte(i), 1}, count: 2})
		m.decide(&header{key: [16]byte{byte(i), 2}, count: 1})
	}
	f.Add(m.encode())
	f.Add(newMachine().encode())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMachine(b)
		if err == nil && !bytes.Equal(m.encode(), b) {
			t.Fatalf("state is not canonical")
		}
	})
}
