package forward_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
)

// forget makes the log forget every producer, as it does with those whose last
// batch lies too far back.
func (c *fakeCluster) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.producers)
}

// forgetUnless is forget, but not while there is doubt: nothing is appended between the
// question and the forgetting.
func (c *fakeCluster) forgetUnless(doubt func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !doubt() {
		clear(c.producers)
	}
}

// P3: a producer that the log has forgotten starts anew, with what the refusal says
// was not appended; its client notices nothing.
func TestForgottenProducerStartsAnew(t *testing.T) {
	c := newCluster(t, "a")
	c.lead("a")
	p := newProxy(t, c, nil)
	for i := range 10 {
		if i == 4 || i == 7 {
			c.forget()
		}
		resp, err := p.Produce(ctxFor(t, 5*time.Second), rec(fmt.Sprint(i)))
		require.NoError(t, err)
		require.Equal(t, uint64(i), resp.Offset)
	}
	require.Len(t, c.values(), 10)
}

// P3: what may have been appended before the log forgot its producer is never sent
// under other numbers: nobody would recognise it. Its client is told so.
func TestForgottenProducerWithAnUnknownOutcome(t *testing.T) {
	for name, appended := range map[string]bool{"it was appended": true, "it was not": false} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, "a")
			c.lead("a")
			p := newProxy(t, c, nil)
			_, err := p.Produce(ctxFor(t, 5*time.Second), rec("first"))
			require.NoError(t, err)
			once := true
			cut := func(*nodev1.AppendRequest) error { // on the handler's goroutine
				if !once {
					return nil
				}
				once = false
				c.forget()
				return errCut
			}
			want := []string{"first", "last"}
			c.nodes["a"].set(func() {
				if appended {
					c.nodes["a"].onAcked, want = cut, []string{"first", "lost", "last"}
				} else {
					c.nodes["a"].onAppend = cut
				}
			})
			_, err = p.Produce(ctxFor(t, 5*time.Second), rec("lost"))
			requireReason(t, apierr.ReasonOutcomeUnknown, err)
			_, err = p.Produce(ctxFor(t, 5*time.Second), rec("last"))
			require.NoError(t, err)
			require.Equal(t, want, c.values())
		})
	}
}

// A producer id that belongs to somebody else, as when a proxy's certificate got
// another name, is refused whatever its numbers. The proxy takes another.
func TestSomebodyElsesProducerID(t *testing.T) {
	c := newCluster(t, "a")
	c.lead("a")
	p := newProxy(t, c, nil)
	_, err := p.Produce(ctxFor(t, 5*time.Second), rec("0"))
	require.NoError(t, err)
	var foreign string // on the handler's goroutine
	c.nodes["a"].set(func() {
		c.nodes["a"].onAppend = func(r *nodev1.AppendRequest) error {
			if foreign == "" {
				foreign = string(r.ProducerId)
			}
			if string(r.ProducerId) == foreign {
				return apierr.UnknownProducer{}
			}
			return nil
		}
	})
	for i := range 3 {
		_, err = p.Produce(ctxFor(t, 5*time.Second), rec(fmt.Sprint(1+i)))
		require.NoError(t, err)
	}
	require.Equal(t, []string{"0", "1", "2", "3"}, c.values())
}
