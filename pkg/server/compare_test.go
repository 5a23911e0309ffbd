package server_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/replica"
)

// CompareHash of the fake knows the entries below 10, at each of which its hash is
// ten times the index, and says who asked it.
func (n *node) CompareHash(name string, index, _ uint64) (bool, uint64, error) {
	switch {
	case name != "n2":
		return false, 0, &replica.InvalidError{Field: "name", Reason: name}
	case index > 20:
		return false, 0, &replica.BehindError{Visible: 7}
	}
	return index < 10, 10 * index, nil
}

func TestCompareHash(t *testing.T) {
	r := start(t)
	peer := r.peer("n2")
	resp, err := peer.CompareHash(ctxOf(t), &nodev1.CompareHashRequest{Index: 4, Hash: 1})
	require.NoError(t, err)
	require.True(t, resp.GetKnown())
	require.Equal(t, uint64(40), resp.GetHash())
	resp, err = peer.CompareHash(ctxOf(t), &nodev1.CompareHashRequest{Index: 14, Hash: 1})
	require.NoError(t, err)
	require.False(t, resp.GetKnown())
	_, err = peer.CompareHash(ctxOf(t), &nodev1.CompareHashRequest{Index: 24, Hash: 1})
	require.Equal(t, apierr.ReasonBehind, apierr.ReasonOf(err), "not an answer: it may come to know it")
}
