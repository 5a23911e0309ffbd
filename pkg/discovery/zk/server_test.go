package zk_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/discovery"
	"github.com/logd-io/logd/pkg/discovery/discoverytest"
	"github.com/logd-io/logd/pkg/discovery/zk"
	"github.com/logd-io/logd/pkg/discovery/zk/zktest"
)

func data(t *testing.T, addr string) string {
	m, err := zk.NewMember(addr)
	require.NoError(t, err)
	text, err := m.Data()
	require.NoError(t, err)
	return string(text)
}

// Over a connection, and not only over what a test makes of one.
func TestConformanceOverAConnection(t *testing.T) {
	s := zktest.New(t)
	s.Set("/a/b/member_0000000000", data(t, "n1:8400"))
	discoverytest.Suite{
		New: func(t *testing.T) discovery.Source {
			src, err := zk.New(zk.Config{Servers: []string{s.Addr()}, Path: "/a/b"}, zk.Options{})
			require.NoError(t, err)
			return src
		},
		First: []discovery.Node{{RPCAddr: "n1:8400"}},
	}.Run(t)
}

func TestMembersComeAndGo(t *testing.T) {
	s := zktest.New(t)
	cfg := zk.Config{Servers: []string{s.Addr()}, Path: "/a/b", User: "u", Password: "p"}
	src, err := zk.New(cfg, zk.Options{})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	up, done := make(chan []discovery.Node), make(chan error, 1)
	go func() { done <- src.Run(ctx, up) }()
	next := func(addrs ...string) {
		t.Helper()
		var want []discovery.Node
		for _, a := range addrs {
			want = append(want, discovery.Node{RPCAddr: a})
		}
		select {
		case set := <-up:
			require.Equal(t, want, set)
		case <-time.After(bound):
			t.Fatal("nothing is said")
		}
	}
	dialled := func() *zk.Conn {
		c, err := dial(t, cfg)
		require.NoError(t, err)
		return c
	}

	one, two := dialled(), dialled()
	name, err := one.Add(t.Context(), "/a/b", zk.MemberPrefix, []byte(data(t, "n1:8400")))
	require.NoError(t, err)
	require.Equal(t, "/a/b/member_0000000000", name)
	next("n1:8400")
	there, gone, err := one.Exists(t.Context(), name)
	require.NoError(t, err)
	require.True(t, there)
	second, err := two.Add(t.Context(), "/a/b", zk.MemberPrefix, []byte(data(t, "n2:8400")))
	require.NoError(t, err)
	next("n1:8400", "n2:8400")
	require.NoError(t, two.Remove(t.Context(), name))
	require.NoError(t, two.Remove(t.Context(), name), "it is gone already")
	<-gone
	next("n2:8400")
	s.Set("/a/b/member_0000000009", data(t, "n3:8400"))
	next("n2:8400", "n3:8400")
	require.NoError(t, two.Close())
	next("n3:8400")
	_, err = one.Get(t.Context(), second)
	require.ErrorIs(t, err, zk.ErrNoNode)

	// All connections are lost; the source makes another, and watches anew.
	s.Cut()
	<-one.Lost()
	s.Set("/a/b/member_0000000010", data(t, "n4:8400"))
	next("n3:8400", "n4:8400")
	require.NoError(t, one.Close())
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
}

// A member that its ACL hides costs nobody the others.
func TestAMemberThatMayNotBeRead(t *testing.T) {
	s := zktest.New(t)
	s.Set("/a/b/member_0000000000", data(t, "n0:8400"))
	s.Set("/a/b/member_0000000001", data(t, "n1:8400"))
	s.Lock("/a/b/member_0000000000")
	src, err := zk.New(zk.Config{Servers: []string{s.Addr()}, Path: "/a/b"}, zk.Options{})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	up, done := make(chan []discovery.Node), make(chan error, 1)
	go func() { done <- src.Run(ctx, up) }()
	select {
	case set := <-up:
		require.Equal(t, []discovery.Node{{RPCAddr: "n1:8400"}}, set)
	case <-ctx.Done():
		t.Fatal("nothing is said")
	}
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
}
