package forward_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
)

// A record of a stream binds the session from the moment its client can have it, not
// only when what was fetched with it has been delivered, too: a client may read one
// and ask elsewhere while the stream waits for it. (F6)
func TestEachDeliveredRecordBindsItsSession(t *testing.T) {
	c := newCluster(t, "a", "b", "c")
	c.lead("a")
	c.fill(6)
	p := newProxy(t, c, nil)
	const session = "logd-session"
	_, err := p.Consume(ctxFor(t, 10*time.Second, session, "s"), &logv1.ConsumeRequest{Offset: 5})
	require.NoError(t, err, "the session is known from here on")

	big, err := proto.Marshal(&logv1.Record{Value: make([]byte, 512<<10)})
	require.NoError(t, err)
	c.mu.Lock()
	for range 3 { // one batch, of more than the client's windows take
		c.records = append(c.records, big)
	}
	close(c.grew)
	c.grew = make(chan struct{})
	c.mu.Unlock()
	s, err := p.ConsumeStream(ctxFor(t, 10*time.Second, session, "s"), &logv1.ConsumeRequest{Offset: 6})
	require.NoError(t, err)
	first, err := s.Recv()
	require.NoError(t, err)
	require.EqualValues(t, 6, first.GetRecord().GetOffset())

	// Only a node is left that has not come as far.
	c.nodes["c"].set(func() { c.nodes["c"].lag = 3 })
	c.elect("")
	c.nodes["a"].kill()
	c.nodes["b"].kill()
	c.publish()
	got, err := p.GetOffsets(ctxFor(t, time.Second, session, "s"), &logv1.GetOffsetsRequest{})
	require.Error(t, err, "the log ends at %d, and the session has read 6", got.GetNext())
}
