package registrar_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/discovery/zk"
	"github.com/logd-io/logd/pkg/internal/testutil"
	"github.com/logd-io/logd/pkg/registrar"
)

func TestMain(m *testing.M) { testutil.VerifyMain(m) }

var _ registrar.Session = (*zk.Conn)(nil)

const (
	place = "/discovery/test/logd"
	ours  = `{"serviceEndpoint":{"host":"node1","port":8400},"additionalEndpoints":{},"status":"ALIVE"}`
)

// zoo is a ZooKeeper with one serverset.
type zoo struct {
	mu      sync.Mutex
	next    int
	members map[string]string // data by path
	owner   map[string]*visit
	touched chan struct{} // closed and replaced when a member is removed
	visits  []*visit
	refuse  error // what dialling answers
	deny    error // what Add answers
	bound   error // what Remove answers
	hidden  error // what Get answers
	silent  bool  // Add makes the member, and the answer is lost with the connection
	dialled int
}

type visit struct {
	*zoo
	lost chan struct{}
}

func newZoo() *zoo {
	return &zoo{members: map[string]string{}, owner: map[string]*visit{}, touched: make(chan struct{})}
}

func (z *zoo) dial(context.Context) (registrar.Session, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.dialled++
	if z.refuse != nil {
		return nil, z.refuse
	}
	v := &visit{z, make(chan struct{})}
	z.visits = append(z.visits, v)
	return v, nil
}

func (z *zoo) do(f func()) {
	z.mu.Lock()
	defer z.mu.Unlock()
	f()
}

// cut ends every connection; the sessions go on at the server until expire.
func (z *zoo) cut() {
	z.do(func() {
		for _, v := range z.visits {
			close(v.lost)
		}
		z.visits = nil
	})
}

// expire removes what no session with a connection has.
func (z *zoo) expire() {
	z.do(func() {
		for path, v := range z.owner {
			if !slices.Contains(z.visits, v) {
				z.remove(path)
			}
		}
	})
}

func (z *zoo) remove(path string) {
	delete(z.members, path)
	delete(z.owner, path)
	close(z.touched)
	z.touched = make(chan struct{})
}

func (z *zoo) paths() []string {
	z.mu.Lock()
	defer z.mu.Unlock()
	return slices.Sorted(maps.Keys(z.members))
}

func (v *visit) over() bool {
	select {
	case <-v.lost:
		return true
	default:
		return false
	}
}

func (v *visit) Add(_ context.Context, path, prefix string, data []byte) (string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.over():
		return "", zk.ErrLost
	case v.deny != nil:
		return "", v.deny
	}
	name := fmt.Sprintf("%s/%s%010d", path, prefix, v.next)
	v.next++
	v.members[name], v.owner[name] = string(data), v
	if v.silent {
		v.silent = false
		return "", zk.ErrLost
	}
	return name, nil
}

func (v *visit) Exists(_ context.Context, path string) (bool, <-chan struct{}, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.over() {
		return false, nil, zk.ErrLost
	}
	_, ok := v.members[path]
	return ok, v.touched, nil
}

func (v *visit) Get(_ context.Context, path string) ([]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	data, ok := v.members[path]
	switch {
	case !ok:
		return nil, zk.ErrNoNode
	case v.hidden != nil:
		return nil, v.hidden
	}
	return []byte(data), nil
}

func (v *visit) Remove(_ context.Context, path string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.bound == nil {
		v.remove(path)
	}
	return v.bound
}

func (v *visit) Lost() <-chan struct{} { return v.lost }
func (v *visit) Err() error            { return zk.ErrLost }

// Close ends the session at the server, when there is still a connection to it.
func (v *visit) Close() error {
	v.do(func() {
		if v.over() {
			return
		}
		close(v.lost)
		v.visits = slices.DeleteFunc(v.visits, func(o *visit) bool { return o == v })
		for path, o := range v.owner {
			if o == v {
				v.remove(path)
			}
		}
	})
	return nil
}

func (z *zoo) dials() int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.dialled
}

// keep runs a Registrar in a bubble.
type keep struct {
	*registrar.Registrar
	t        *testing.T
	z        *zoo
	log      testutil.Log
	failures atomic.Int32
	stop     func()
}

func run(t *testing.T, z *zoo) *keep {
	k := &keep{t: t, z: z}
	r, err := registrar.New(registrar.Config{
		Dial: z.dial, Path: place, Address: "node1:8400",
		Failed: func() { k.failures.Add(1) }, Logger: hclog.New(&hclog.LoggerOptions{Output: &k.log}),
	})
	require.NoError(t, err)
	k.Registrar = r
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	k.stop = sync.OnceFunc(func() {
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
		require.Empty(t, z.visits, "a session was not closed")
	})
	t.Cleanup(k.stop)
	return k
}

// has is the one member that is there after d.
func (k *keep) has(d time.Duration, number int) {
	k.t.Helper()
	time.Sleep(d)
	synctest.Wait()
	want := fmt.Sprintf("%s/member_%010d", place, number)
	require.Equal(k.t, []string{want}, k.z.paths(), "%s", k.log.String())
	require.Equal(k.t, want, k.Member())
	require.Equal(k.t, ours, k.z.members[want])
}

func (k *keep) hasNone(d time.Duration) {
	k.t.Helper()
	time.Sleep(d)
	synctest.Wait()
	require.Empty(k.t, k.z.paths())
	require.Empty(k.t, k.Member())
}

func TestAMemberIsThereWhileTheNodeIsReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := run(t, newZoo())
		k.hasNone(time.Hour)
		require.Zero(t, k.z.dials(), "a node that is not ready needs no session")
		k.SetReady(true)
		k.SetReady(true)
		k.has(0, 0)
		k.SetReady(false)
		k.hasNone(0)
		k.SetReady(true)
		k.has(0, 1)
		k.SetReady(false)
		k.SetReady(true) // before anybody has looked: at the most it is made anew
		synctest.Wait()
		require.Len(t, k.z.paths(), 1)
		k.stop()
		require.Empty(t, k.z.paths(), "an orderly end leaves no member")
		require.Zero(t, k.failures.Load())
	})
}

// The connection is lost and the session is still there at the server: the member is made
// again, and the old one does not wait for its timeout.
func TestALostConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := run(t, newZoo())
		k.SetReady(true)
		k.has(0, 0)
		k.z.cut()
		k.has(time.Second, 1)
		require.EqualValues(t, 1, k.failures.Load())
		require.Equal(t, 1, strings.Count(k.log.String(), "tries again"), "%s", k.log.String())
	})
}

func TestAnExpiredSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := run(t, newZoo())
		k.SetReady(true)
		k.has(0, 0)
		k.z.do(func() { k.z.refuse = errors.New("no route to host") })
		k.z.cut()
		k.z.expire()
		k.hasNone(time.Hour)
		require.Less(t, k.failures.Load(), int32(300), "at most each 15 s")
		require.Equal(t, 1, strings.Count(k.log.String(), "tries again"), "%s", k.log.String())
		k.z.do(func() { k.z.refuse = nil })
		k.has(31*time.Second, 1)
	})
}

// A ZooKeeper that registers and then cuts is asked ever less often, and is one trouble.
func TestMembersThatDoNotLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := run(t, newZoo())
		k.SetReady(true)
		for range 25_000 {
			time.Sleep(time.Millisecond)
			synctest.Wait()
			k.z.cut()
		}
		require.Less(t, k.z.dials(), 12)
		require.Greater(t, k.z.dials(), 3)
		require.Equal(t, 1, strings.Count(k.log.String(), "tries again"), "%s", k.log.String())
		require.Equal(t, 1, strings.Count(k.log.String(), "is a member"), "%s", k.log.String())

		// One that lasts is said, and what comes then is a new trouble, tried at once.
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, 2, strings.Count(k.log.String(), "is a member"), "%s", k.log.String())
		before := k.z.dials()
		k.z.cut()
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, before+1, k.z.dials())
		require.Equal(t, 2, strings.Count(k.log.String(), "tries again"), "%s", k.log.String())
	})
}

// Where the path was made anew, the number of a member that was lost can be another's.
func TestAnothersMemberIsNotRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := run(t, newZoo())
		k.SetReady(true)
		k.has(0, 0)
		k.z.do(func() { k.z.members[place+"/member_0000000000"] = "another's" })
		k.z.cut()
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, []string{place + "/member_0000000000", place + "/member_0000000001"}, k.z.paths())
	})
}

// Where the parent's ACL is "create, read", who makes a member may not remove it while
// another session has it. The new member must not suffer for it.
func TestAnOldMemberThatMayNotBeRemoved(t *testing.T) {
	for name, deny := range map[string]func(*zoo){
		"NoAuth to remove": func(z *zoo) { z.bound = &zk.ServerError{Code: -102} },
		"NoAuth to look":   func(z *zoo) { z.hidden = &zk.ServerError{Code: -102} },
		"huge":             func(z *zoo) { z.hidden = zk.ErrTooLarge },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				z := newZoo()
				deny(z)
				k := run(t, z)
				k.SetReady(true)
				k.has(0, 0)
				for n := range 3 {
					k.z.cut()
					time.Sleep(time.Minute)
					k.z.expire()
					k.has(0, n+1)
				}
				require.Equal(t, 4, k.z.dials(), "%s", k.log.String())
				require.Equal(t, 1, strings.Count(k.log.String(), "cannot be removed"), "%s", k.log.String())
			})
		})
	}
}

// A member whose making was not confirmed goes with its session, and is not made twice.
func TestAnAnswerThatIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := run(t, newZoo())
		k.z.silent = true
		k.SetReady(true)
		k.has(time.Second, 1)
	})
}

func TestSomebodyRemovesTheMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := run(t, newZoo())
		k.SetReady(true)
		k.has(0, 0)
		k.z.do(func() { k.z.remove(place + "/member_0000000000") })
		k.hasNone(time.Millisecond)
		k.has(2*time.Second, 1)
		require.Equal(t, 1, k.z.dials(), "in the same session")
	})
}

func TestANodeThatIsNotReadyAfterItsConnectionIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := run(t, newZoo())
		k.SetReady(true)
		k.has(0, 0)
		k.z.do(func() { k.z.refuse = errors.New("refused") })
		k.z.cut()
		k.SetReady(false)
		k.z.expire()
		k.hasNone(time.Hour)
		n := k.z.dials()
		k.hasNone(time.Hour)
		require.Equal(t, n, k.z.dials(), "there is nothing to tell")
	})
}

func TestAnAddressThatIsNoneIsRefused(t *testing.T) {
	_, err := registrar.New(registrar.Config{Address: "node1"})
	require.Error(t, err)
}
