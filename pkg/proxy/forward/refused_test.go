package forward_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	logv1 "github.com/logd-io/logd/pkg/api/log/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/proxy/forward"
)

// refusals are what a node says to the append streams of those who may not produce.
type refusals struct {
	mu   sync.Mutex
	open []chan error // of streams of bob that are open
	not  bool         // bob may not produce
}

func (r *refusals) stream(principal string) <-chan error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if principal != "bob" {
		return nil
	}
	c := make(chan error, 1) // 1: the one refusal
	if r.not {
		c <- apierr.PermissionDenied{Why: "bob may not produce"}
	} else {
		r.open = append(r.open, c)
	}
	return c
}

// set says whether bob may produce, to the streams he has, too.
func (r *refusals) set(may bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.not = !may
	if !may {
		for _, c := range r.open {
			c <- apierr.PermissionDenied{Why: "bob may not produce"}
		}
		r.open = nil
	}
}

// withBob is a proxy before a node that may refuse bob.
func withBob(t *testing.T) (*fakeCluster, *proxy, *refusals) {
	c := newCluster(t, "a")
	c.lead("a")
	r := &refusals{}
	c.nodes["a"].onStream = r.stream
	return c, newProxy(t, c, func(cfg *forward.Config) {
		cfg.Principal = func(ctx context.Context) (string, error) {
			return metadata.ValueFromIncomingContext(ctx, "who")[0], nil
		}
	}), r
}

func as(name string) context.Context {
	return metadata.AppendToOutgoingContext(context.Background(), "who", name)
}

// One who may not produce hears that at once, each time, and costs the others
// neither time nor the budget that their retries come from.
func TestARefusedPrincipalHarmsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p, r := withBob(t)
		_, err := p.Produce(as("alice"), rec("x"))
		require.NoError(t, err)
		r.set(false)
		begun := time.Now()
		for range 300 { // three times the budget
			_, err := p.Produce(as("bob"), rec("x"))
			require.Equal(t, codes.PermissionDenied, status.Code(err), "%v", err)
			require.ErrorContains(t, err, "bob may not produce")
			_, err = p.Produce(as("alice"), rec("x"))
			require.NoError(t, err)
		}
		require.Zero(t, time.Since(begun), "somebody waited")
		require.Zero(t, p.metric("append_retries_total"))
		require.Zero(t, p.metric("holds_total"))
		require.LessOrEqual(t, c.nodes["a"].streams, 1+300, "a stream a call of bob's, and one of alice's")
		_, failed := p.hints.all()
		require.Empty(t, failed, "the node is in order")

		r.set(true)
		_, err = p.Produce(as("bob"), rec("x"))
		require.NoError(t, err)
		require.Zero(t, time.Since(begun), "what was refused before delays nothing")
		p.stop()
		c.nodes["a"].stop()
	})
}

// All that waits is refused together, however much it is: not a window of it for
// each stream, and what is behind it not at the end of the time a leader has.
func TestAllThatWaitsIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p, r := withBob(t)
		c.nodes["a"].freeze()
		// More than a stream's window of bob's, and a little of alice's.
		const calls = 200
		errs := make(chan error, calls) // one each
		for i := range calls {
			go func() {
				_, err := p.Produce(as("bob"), rec(fmt.Sprint(i, string(make([]byte, 100<<10)))))
				errs <- err
			}()
		}
		alice := make(chan error, 1) // 1: the result
		go func() { _, err := p.Produce(as("alice"), rec("x")); alice <- err }()
		synctest.Wait()
		r.set(false)
		c.nodes["a"].thaw()
		begun := time.Now()
		refused := 0
		for range calls {
			switch err := <-errs; status.Code(err) {
			case codes.PermissionDenied:
				refused++
			case codes.ResourceExhausted, codes.OK:
			default:
				t.Errorf("%v", err)
			}
		}
		require.Greater(t, refused, calls/2)
		require.LessOrEqual(t, c.nodes["a"].streams, 3, "one for each, and no more windows to be refused")
		require.NoError(t, <-alice)
		require.Zero(t, time.Since(begun))
		p.stop()
		c.nodes["a"].stop()
	})
}

// A ProduceStream that is open when its principal may not go on ends with that, what
// was taken acknowledged.
func TestAnOpenStreamOfOneWhoIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p, r := withBob(t)
		bob, err := p.ProduceStream(as("bob"))
		require.NoError(t, err)
		alice, err := p.ProduceStream(as("alice"))
		require.NoError(t, err)
		exchange := func(s logv1.Log_ProduceStreamClient) error {
			if err := s.Send(rec("x")); err != nil {
				_, err = s.Recv()
				return err
			}
			_, err := s.Recv()
			return err
		}
		require.NoError(t, exchange(bob))
		require.NoError(t, exchange(alice))
		r.set(false)
		synctest.Wait()
		require.Equal(t, codes.PermissionDenied, status.Code(exchange(bob)))
		require.NoError(t, exchange(alice))
		p.stop()
		c.nodes["a"].stop()
	})
}
