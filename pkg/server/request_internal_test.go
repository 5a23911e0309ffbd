package server

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

// A record in very many pieces costs no more than its bytes.
func TestARecordInManyPieces(t *testing.T) {
	req := bytes.Repeat([]byte{1<<3 | 2, 2, recordValue<<3 | 2, 0}, 100_000)
	rec, err := produceRecord(req)
	require.NoError(t, err)
	require.Len(t, rec, 200_000)
	require.Less(t, testing.AllocsPerRun(1, func() { _, _ = produceRecord(req) }), 100.0)
	require.Equal(t, byte(1<<3|2), req[4], "the request is as it was")
}
