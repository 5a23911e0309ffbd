package zk

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/discovery"
	"github.com/logd-io/logd/pkg/discovery/discoverytest"
	"github.com/logd-io/logd/pkg/internal/testutil"
)

const place = "/discovery/test/logd"

// zoo is a ZooKeeper that a test writes: the children of place, nil for no path.
type zoo struct {
	mu       sync.Mutex
	children map[string]string
	changed  chan struct{}
	lost     chan struct{} // of the sessions there are
	refuse   error         // what dialling answers
	broken   error         // what a read answers
	dialled  int
	reads    int
	open     int // sessions
}

func newZoo(children map[string]string) *zoo {
	return &zoo{children: children, changed: make(chan struct{}), lost: make(chan struct{})}
}

func (z *zoo) dial(context.Context) (session, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.dialled++
	if z.refuse != nil {
		return nil, z.refuse
	}
	z.open++
	return &visit{z, z.lost}, nil
}

func (z *zoo) dials() (n int) {
	z.do(func() { n = z.dialled })
	return n
}

func (z *zoo) do(f func()) {
	z.mu.Lock()
	defer z.mu.Unlock()
	f()
}

// set changes the children, and those who watch are told.
func (z *zoo) set(children map[string]string) {
	z.do(func() {
		z.children = maps.Clone(children)
		close(z.changed)
		z.changed = make(chan struct{})
	})
}

// expire ends all sessions; the watches of them are never heard of again.
func (z *zoo) expire() {
	z.do(func() {
		close(z.lost)
		z.lost, z.changed = make(chan struct{}), make(chan struct{})
	})
}

type visit struct {
	*zoo
	mine chan struct{}
}

func (v *visit) Children(_ context.Context, path string, f func(string)) (<-chan struct{}, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.reads++
	switch {
	case path != place:
		return nil, fmt.Errorf("asked for %s", path)
	case v.broken != nil:
		return nil, v.broken
	case v.children == nil:
		return v.changed, ErrNoNode
	}
	for name := range v.children {
		f(name)
	}
	return v.changed, nil
}

func (v *visit) Get(_ context.Context, path string) ([]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	data, ok := v.children[strings.TrimPrefix(path, place+"/")]
	switch {
	case !ok:
		return nil, ErrNoNode
	case data == "huge":
		return nil, ErrTooLarge
	case data == "gone":
		return nil, ErrNoNode
	case data == "secret":
		return nil, &ServerError{Code: -102}
	case data == "expired":
		return nil, &ServerError{Code: -112}
	}
	return []byte(data), nil
}

func (v *visit) Lost() <-chan struct{} { return v.mine }
func (v *visit) Err() error            { return ErrLost }
func (v *visit) Close() error          { v.do(func() { v.open-- }); return nil }

func member(host string) string {
	return fmt.Sprintf(`{"serviceEndpoint":{"host":%q,"port":8400},"additionalEndpoints":{},"status":"ALIVE"}`, host)
}

func set(hosts ...string) (nodes []discovery.Node) {
	for _, h := range hosts {
		nodes = append(nodes, discovery.Node{RPCAddr: h + ":8400"})
	}
	return nodes
}

func TestConformance(t *testing.T) {
	discoverytest.Suite{
		New: func(*testing.T) discovery.Source {
			z := newZoo(map[string]string{"member_0000000001": member("b"), "member_0000000000": member("a"), "member_0000000002": member("b")})
			return newSource(place, Options{}, z.dial)
		},
		First: set("a", "b"),
	}.Run(t)
}

// follow runs a source in a bubble. next is the set that is sent, nil when none is
// within ten minutes.
func follow(t *testing.T, z *zoo, opt Options) (next func() []discovery.Node) {
	ctx, cancel := context.WithCancel(t.Context())
	up, done := make(chan []discovery.Node), make(chan error, 1)
	go func() { done <- newSource(place, opt, z.dial).Run(ctx, up) }()
	t.Cleanup(func() {
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
		require.Zero(t, z.open, "sessions that were not closed")
	})
	return func() []discovery.Node {
		timer := time.NewTimer(10 * time.Minute)
		defer timer.Stop()
		select {
		case set := <-up:
			return set
		case <-timer.C:
			return nil
		}
	}
}

func TestOnlyLiveMembersCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log testutil.Log
		z := newZoo(map[string]string{
			"member_0000000000": member("a"),
			"member_0000000001": `{"serviceEndpoint":{"host":"::1","port":9},"additionalEndpoints":{"admin":{"host":"b","port":8402}},"status":"ALIVE","shard":3,"metadata":{"x":"y"}}`,
			"member_0000000002": `{"serviceEndpoint":{"host":"dead","port":8400},"status":"DEAD"}`,
			"member_0000000003": `{"serviceEndpoint":{"host":"mute","port":8400}}`,
			"member_0000000004": `not JSON`,
			"member_0000000005": `{"serviceEndpoint":{"host":"","port":8400},"status":"ALIVE"}`,
			"member_0000000006": `{"serviceEndpoint":{"host":"a","port":0},"status":"ALIVE"}`,
			"member_0000000007": "huge",
			"member_0000000008": "gone",
			"member_0000000009": `{"serviceEndpoint":{"host":"a b","port":8400},"status":"ALIVE"}`,
			"member_0000000010": `{"serviceEndpoint":{"host":"` + strings.Repeat("a", memberMost) + `","port":8400},"status":"ALIVE"}`,
			"member_0000000011": "secret",
			"vector_0000000011": member("vector"),
			"lock":              member("lock"),
		})
		next := follow(t, z, Options{Logger: hclog.New(&hclog.LoggerOptions{Output: &log})})
		require.Equal(t, []discovery.Node{{RPCAddr: "[::1]:9"}, {RPCAddr: "a:8400"}}, next())
		require.Nil(t, next(), "nothing has changed")
		require.Equal(t, 7, strings.Count(log.String(), "is skipped"), "each is said once:\n%s", log.String())

		// One that is mended and broken again is news.
		z.set(map[string]string{"member_0000000000": member("a"), "member_0000000004": member("b")})
		require.Equal(t, set("a", "b"), next())
		z.set(map[string]string{"member_0000000000": member("a"), "member_0000000004": "{}"})
		require.Equal(t, set("a"), next())
		require.Equal(t, 8, strings.Count(log.String(), "is skipped"), "%s", log.String())
	})
}

func TestThePathIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZoo(nil)
		next := follow(t, z, Options{Failed: func() { t.Error("that is no failure") }})
		require.Nil(t, next())
		z.set(map[string]string{})
		require.Nil(t, next())
		z.set(map[string]string{"member_0000000000": member("a")})
		require.Equal(t, set("a"), next())
		require.Equal(t, 1, z.dials())
	})
}

func TestTheLastGoodSetStays(t *testing.T) {
	tests := map[string]struct{ trouble, end func(z *zoo) }{
		"nobody is left":      {func(z *zoo) { z.set(map[string]string{}) }, func(*zoo) {}},
		"the path is gone":    {func(z *zoo) { z.set(nil) }, func(*zoo) {}},
		"all are broken":      {func(z *zoo) { z.set(map[string]string{"member_0000000000": "x", "member_0000000001": "y"}) }, func(*zoo) {}},
		"the session expired": {func(z *zoo) { z.expire() }, func(*zoo) {}},
		"a read says so": {
			func(z *zoo) {
				z.set(map[string]string{"member_0000000000": member("a"), "member_0000000001": "expired"})
			},
			func(*zoo) {},
		},
		"it cannot be reached": {
			func(z *zoo) { z.do(func() { z.refuse = errors.New("connection refused") }); z.expire() },
			func(z *zoo) { z.do(func() { z.refuse = nil }) },
		},
		"it answers with errors": {
			func(z *zoo) { z.do(func() { z.broken = &ServerError{Code: -102} }); z.set(nil) },
			func(z *zoo) { z.do(func() { z.broken = nil }) },
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				z := newZoo(map[string]string{"member_0000000000": member("a"), "member_0000000001": member("b")})
				next := follow(t, z, Options{})
				require.Equal(t, set("a", "b"), next())
				tt.trouble(z)
				require.Nil(t, next())
				tt.end(z)
				z.set(map[string]string{"member_0000000000": member("a"), "member_0000000002": member("c")})
				require.Equal(t, set("a", "c"), next())
			})
		})
	}
}

func TestFailuresAreCountedSaidOnceAndTriedLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log testutil.Log
		failures := 0
		z := newZoo(map[string]string{"member_0000000000": member("a")})
		z.refuse = errors.New("connection refused")
		next := follow(t, z, Options{Logger: hclog.New(&hclog.LoggerOptions{Output: &log}), Failed: func() { failures++ }})
		require.Nil(t, next())
		synctest.Wait()
		require.Equal(t, z.dials(), failures)
		require.Less(t, failures, 60, "in ten minutes, at most each 15 s to 30 s in the end")
		require.Greater(t, failures, 15)
		require.Equal(t, 1, strings.Count(log.String(), "cannot be read"), "%s", log.String())
		require.Contains(t, log.String(), "connection refused")
		z.do(func() { z.refuse = nil })
		require.Equal(t, set("a"), next())
		require.Nil(t, next())
		require.Equal(t, 1, strings.Count(log.String(), "the nodes are read from ZooKeeper"), "%s", log.String())
	})
}

// A ZooKeeper that is read and then cuts is asked ever less often, and is one trouble.
func TestSessionsThatDoNotLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log testutil.Log
		z := newZoo(map[string]string{"member_0000000000": member("a")})
		next := follow(t, z, Options{Logger: hclog.New(&hclog.LoggerOptions{Output: &log})})
		require.Equal(t, set("a"), next())
		for range 25_000 {
			time.Sleep(time.Millisecond)
			synctest.Wait()
			z.expire()
		}
		synctest.Wait()
		require.Less(t, z.dials(), 12)
		require.Greater(t, z.dials(), 3)
		require.Equal(t, 1, strings.Count(log.String(), "cannot be read"), "%s", log.String())
		require.Equal(t, 1, strings.Count(log.String(), "are read"), "%s", log.String())

		// One that lasts is said, and what comes then is a new trouble, tried at once.
		require.Nil(t, next())
		synctest.Wait()
		require.Equal(t, 2, strings.Count(log.String(), "are read"), "%s", log.String())
		before := z.dials()
		z.expire()
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, before+1, z.dials())
		require.Equal(t, 2, strings.Count(log.String(), "cannot be read"), "%s", log.String())
	})
}

// A watch is told of children only; Twitter's ServerSets could change a member's data.
func TestAMembersNewDataIsReadInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZoo(map[string]string{"member_0000000000": `{"serviceEndpoint":{"host":"a","port":8400},"status":"STARTING"}`})
		next := follow(t, z, Options{})
		require.Nil(t, next())
		z.do(func() { z.children["member_0000000000"] = member("a") })
		require.Equal(t, set("a"), next())
		require.Less(t, z.reads, 20)
	})
}

func TestNotEveryMemberOfACrowdIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		crowd := map[string]string{}
		for i := range 3 * membersMost {
			crowd[fmt.Sprintf("member_%010d", i)] = member(fmt.Sprint("h", i))
		}
		require.Len(t, follow(t, newZoo(crowd), Options{})(), membersMost)
	})
}

// A set that changes all the time is not read all the time.
func TestChangesThatComeTogetherAreOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZoo(map[string]string{"member_0000000000": member("a")})
		next := follow(t, z, Options{})
		require.Equal(t, set("a"), next())
		for i := range 1000 {
			z.set(map[string]string{"member_0000000000": member("a"), "member_0000000001": member(fmt.Sprint("b", i))})
			synctest.Wait()
		}
		require.Equal(t, set("a", "b999"), next())
		require.Equal(t, 2, z.reads)
	})
}
