package harness_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/test/harness"
)

func records(numbers ...uint64) []*logv1.Record {
	var recs []*logv1.Record
	for i, n := range numbers {
		recs = append(recs, &logv1.Record{Offset: uint64(i), Value: harness.Value(n, []string{"a line"})})
	}
	return recs
}

// A checker that finds nothing wrong with a wrong log is worth nothing.
func TestCheckFindsWhatIsWrong(t *testing.T) {
	acked := map[uint64]uint64{7: 0, 3: 1, 5: 2}
	for name, tc := range map[string]struct {
		recs []*logv1.Record
		want harness.Verdict
	}{
		"all there":                 {records(7, 3, 5), harness.Verdict{InLog: 3}},
		"one more, never acked":     {records(7, 3, 5, 9), harness.Verdict{InLog: 4}},
		"the last one lost":         {records(7, 3), harness.Verdict{InLog: 2, Lost: 1}},
		"one twice":                 {records(7, 3, 5, 3), harness.Verdict{InLog: 4, Duplicates: 1}},
		"two at each other's place": {records(7, 5, 3), harness.Verdict{InLog: 3, Lost: 2}},
		"an empty log":              {nil, harness.Verdict{Lost: 3}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := harness.Check(tc.recs, acked)
			require.NoError(t, err)
			require.Equal(t, tc.want, got)
		})
	}

	t.Run("a hole in the offsets", func(t *testing.T) {
		recs := records(7, 3, 5)
		recs[2].Offset = 3
		_, err := harness.Check(recs, acked)
		var gap *harness.GapError
		require.ErrorAs(t, err, &gap)
		require.Equal(t, harness.GapError{Want: 2, Got: 3}, *gap)
	})
	t.Run("a value that is not ours", func(t *testing.T) {
		_, err := harness.Check([]*logv1.Record{{Value: []byte("x")}}, acked)
		require.Error(t, err)
	})
}
