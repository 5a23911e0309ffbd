package discovery_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/logd-io/logd/pkg/discovery"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSet(t *testing.T) {
	require.Equal(t,
		[]discovery.Node{{ID: "", RPCAddr: "a:1"}, {ID: "n1", RPCAddr: "a:1"}, {ID: "n0", RPCAddr: "b:1"}},
		discovery.Set([]discovery.Node{
			{ID: "n0", RPCAddr: "b:1"}, {ID: "n1", RPCAddr: "a:1"}, {ID: "lost"}, {RPCAddr: "a:1"}, {ID: "n1", RPCAddr: "a:1"},
		}))
	require.Empty(t, discovery.Set(nil))
}

func TestSendGivesUpWithItsContext(t *testing.T) {
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(why)
	require.ErrorIs(t, discovery.Send(ctx, make(chan []discovery.Node), nil), why)
}
