package membership_test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/serf/serf"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/internal/testutil"
	"github.com/logd-io/logd/pkg/membership"
)

const (
	uuidA = "11111111-1111-4111-8111-111111111111"
	uuidB = "22222222-2222-4222-8222-222222222222"
)

func TestFailedStaysAndLeftLeaves(t *testing.T) {
	first := config("n1", membership.RoleStorage)
	first.Tags = membership.Tags{RPCAddr: "n1.example:8400", Expect: 3, HasState: true, Version: "v1", Cluster: uuidA}
	n1 := start(t, first)
	join := func(id string, role membership.Role) *running {
		cfg := config(id, role)
		cfg.RetryJoin = []string{n1.Addr()}
		return start(t, cfg)
	}
	n2, n3, p1 := join("n2", membership.RoleStorage), join("n3", membership.RoleStorage), join("p1", membership.RoleProxy)
	all := []*running{n1, n2, n3, p1}
	for _, g := range all {
		sees(t, g, "n1:alive", "n2:alive", "n3:alive", "p1:alive")
	}
	require.Equal(t, membership.Member{
		ID: "n1", Role: membership.RoleStorage, State: membership.Alive,
		RPCAddr: "n1.example:8400", GossipAddr: n1.Addr(),
		Expect: 3, HasState: true, Version: "v1", Cluster: uuidA,
	}, find(p1, "n1"))
	require.Equal(t, membership.RoleProxy, find(n1, "p1").Role)

	before := n1.Members()
	held := fmt.Sprint(before)
	require.NoError(t, n3.stop()) // dies without a word
	for _, g := range []*running{n1, n2, p1} {
		sees(t, g, "n1:alive", "n2:alive", "n3:failed", "p1:alive")
	}
	require.Equal(t, held, fmt.Sprint(before), "a published value never changes")

	require.NoError(t, n2.Leave())
	for _, g := range []*running{n1, p1} {
		sees(t, g, "n1:alive", "n2:left", "n3:failed", "p1:alive")
	}
	// Events about itself ended no Run: not its own leave, not the others' death.
	for _, g := range []*running{n1, n2, p1} {
		require.Empty(t, g.ended)
	}
}

func TestTagsSpread(t *testing.T) {
	n1 := start(t, config("n1", membership.RoleStorage))
	cfg := config("n2", membership.RoleStorage)
	cfg.RetryJoin = []string{n1.Addr()}
	n2 := start(t, cfg)
	sees(t, n1, "n1:alive", "n2:alive")

	for i := range 50 { // only the newest needs to be said
		n2.SetTags(func(tags *membership.Tags) { tags.RPCAddr = fmt.Sprintf("n2:%d", i) })
	}
	n2.SetTags(func(tags *membership.Tags) { tags.Draining, tags.Cluster = true, uuidA })
	// Too long to be said: dropped, and what was said stays.
	n2.SetTags(func(tags *membership.Tags) { tags.Version = strings.Repeat("v", 600) })
	for _, g := range []*running{n1, n2} {
		testutil.EventuallyOn(t, bound, g.Changes, func() error {
			m := find(g, "n2")
			if m.RPCAddr != "n2:49" || !m.Draining || m.Cluster != uuidA || m.Version != "" {
				return fmt.Errorf("n2 is %+v", m)
			}
			return nil
		})
	}
}

func TestStrangersAreRefused(t *testing.T) {
	n1 := start(t, config("n1", membership.RoleStorage))
	for name, change := range map[string]func(*membership.Config){
		"wrong key":     func(c *membership.Config) { c.Key = []byte("another-key-16by") },
		"no key":        func(c *membership.Config) { c.Key = nil },
		"wrong label":   func(c *membership.Config) { c.Label = "other" },
		"without label": func(c *membership.Config) { c.Label = "" },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config("n2", membership.RoleStorage)
			change(&cfg)
			n2 := start(t, cfg)
			n, err := n2.Join([]string{n1.Addr()})
			require.Error(t, err)
			require.ErrorContains(t, err, n1.Addr())
			require.Zero(t, n)
			sees(t, n2, "n2:alive")
			sees(t, n1, "n1:alive")
		})
	}
	// The cluster still takes those that belong.
	good := start(t, config("n3", membership.RoleStorage))
	n, err := good.Join([]string{n1.Addr()})
	require.NoError(t, err)
	require.Equal(t, 1, n)
	sees(t, n1, "n1:alive", "n3:alive")
}

func TestMembersOfAnotherClusterAreKeptOut(t *testing.T) {
	a := config("a1", membership.RoleStorage)
	a.Tags.Cluster = uuidA
	b := config("b1", membership.RoleStorage)
	b.Tags.Cluster = uuidB
	a1, b1 := start(t, a), start(t, b)
	cfg := config("a2", membership.RoleStorage) // not yet in a cluster
	a2 := start(t, cfg)
	_, err := b1.Join([]string{a1.Addr()})
	require.ErrorContains(t, err, uuidA)
	require.ErrorContains(t, err, uuidB)
	_, err = a2.Join([]string{a1.Addr()})
	require.NoError(t, err)
	sees(t, a1, "a1:alive", "a2:alive")
	// By way of one that is in neither, they still do not meet.
	_, err = b1.Join([]string{a2.Addr()})
	require.NoError(t, err)
	sees(t, a2, "a1:alive", "a2:alive", "b1:alive")
	sees(t, b1, "a2:alive", "b1:alive")
	a2.SetTags(func(tags *membership.Tags) { tags.Cluster = uuidA })
	testutil.EventuallyOn(t, bound, a1.Changes, func() error {
		if got := find(a1, "a2").Cluster; got != uuidA {
			return fmt.Errorf("a2 is in %q", got)
		}
		return nil
	})
	sees(t, a1, "a1:alive", "a2:alive")
	sees(t, b1, "a2:alive", "b1:alive")
}

// A member of another program, with the right key, is not listed and hurts nobody.
func TestMembersWithoutARoleAreKeptOut(t *testing.T) {
	n1 := start(t, config("n1", membership.RoleStorage))
	c := serf.DefaultConfig()
	c.NodeName, c.Tags, c.LogOutput = "stranger", map[string]string{"role": "king"}, io.Discard
	c.MemberlistConfig = memberlist.DefaultLocalConfig()
	c.MemberlistConfig.BindAddr, c.MemberlistConfig.BindPort = "127.0.0.1", 0
	c.MemberlistConfig.Label, c.MemberlistConfig.SecretKey, c.MemberlistConfig.LogOutput = "test", key, io.Discard
	s, err := serf.Create(c)
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Shutdown()) }()
	_, _ = s.Join([]string{n1.Addr()}, true) // refused here or, by its absence, below
	n2 := start(t, config("n2", membership.RoleStorage))
	_, err = n2.Join([]string{n1.Addr()})
	require.NoError(t, err)
	sees(t, n1, "n1:alive", "n2:alive")
	sees(t, n2, "n1:alive", "n2:alive")
}

func TestRestartRejoinsFromTheSnapshot(t *testing.T) {
	n1 := start(t, config("n1", membership.RoleStorage))
	cfg := config("n2", membership.RoleStorage)
	cfg.SnapshotPath = snapshot(t)
	n2 := start(t, cfg)
	_, err := n2.Join([]string{n1.Addr()})
	require.NoError(t, err)
	sees(t, n2, "n1:alive", "n2:alive")
	sees(t, n1, "n1:alive", "n2:alive")
	require.NoError(t, n2.stop())
	sees(t, n1, "n1:alive", "n2:failed")

	cfg.BindAddr = n2.Addr() // the same address, and nobody to join
	again := start(t, cfg)
	sees(t, again, "n1:alive", "n2:alive")
	sees(t, n1, "n1:alive", "n2:alive")

	// Also after it left: then it was an operator who started it again.
	require.NoError(t, again.Leave())
	sees(t, n1, "n1:alive", "n2:left")
	require.NoError(t, again.stop())
	third := start(t, cfg)
	sees(t, third, "n1:alive", "n2:alive")
	sees(t, n1, "n1:alive", "n2:alive")
}

// One that was removed is forgotten by everybody; a word too much about one that is alive
// does no harm.
func TestForget(t *testing.T) {
	n1 := start(t, config("n1", membership.RoleStorage))
	join := func(id string, role membership.Role) *running {
		cfg := config(id, role)
		cfg.RetryJoin = []string{n1.Addr()}
		return start(t, cfg)
	}
	n2, n3, p1 := join("n2", membership.RoleStorage), join("n3", membership.RoleStorage), join("p1", membership.RoleProxy)
	sees(t, p1, "n1:alive", "n2:alive", "n3:alive", "p1:alive")
	require.NoError(t, n3.stop())
	for _, g := range []*running{n1, n2, p1} {
		sees(t, g, "n1:alive", "n2:alive", "n3:failed", "p1:alive")
	}
	require.NoError(t, n1.Forget("n3"))
	for _, g := range []*running{n1, n2, p1} {
		sees(t, g, "n1:alive", "n2:alive", "n3:left", "p1:alive")
	}
	require.NoError(t, n1.Forget("n2"))
	require.NoError(t, n1.Forget("nobody"))
	for _, g := range []*running{n1, n2, p1} {
		sees(t, g, "n1:alive", "n2:alive", "n3:left", "p1:alive")
	}
}

// All nodes come back at other addresses, and find each other. The proxy knows only
// where they were; they remember where it is.
func TestInCompanyTheRememberedAreAskedToo(t *testing.T) {
	p1 := start(t, config("p1", membership.RoleProxy))
	cfg := config("n1", membership.RoleStorage)
	cfg.SnapshotPath, cfg.RetryJoin = snapshot(t), []string{p1.Addr()}
	n1 := start(t, cfg)
	sees(t, n1, "n1:alive", "p1:alive")
	require.NoError(t, n1.stop())
	sees(t, p1, "n1:failed", "p1:alive")

	n2 := start(t, config("n2", membership.RoleStorage))
	cfg.RetryJoin = []string{n2.Addr()}
	start(t, cfg)
	sees(t, n2, "n1:alive", "n2:alive", "p1:alive")
	sees(t, p1, "n1:alive", "n2:alive", "p1:alive")
}

func TestRunJoinsWhoComesLater(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	later := lis.Addr().String()
	require.NoError(t, lis.Close())

	cfg := config("n1", membership.RoleStorage)
	cfg.RetryJoin = []string{later, "host.invalid:1"}
	reg := prometheus.NewPedanticRegistry()
	cfg.Registerer = reg
	n1 := start(t, cfg)
	testutil.Eventually(t, bound, func() error {
		if counter(t, reg, "logd_gossip_join_failures_total") == 0 {
			return fmt.Errorf("no attempt yet")
		}
		return nil
	})
	second := config("n2", membership.RoleStorage)
	second.BindAddr = later
	n2 := start(t, second)
	sees(t, n1, "n1:alive", "n2:alive")
	sees(t, n2, "n1:alive", "n2:alive")
}

func counter(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// The second process with an id loses against those that know the first.
func TestNameConflictEndsRun(t *testing.T) {
	n1 := start(t, config("n1", membership.RoleStorage))
	for _, id := range []string{"n2", "n3"} {
		cfg := config(id, membership.RoleStorage)
		cfg.RetryJoin = []string{n1.Addr()}
		start(t, cfg)
	}
	sees(t, n1, "n1:alive", "n2:alive", "n3:alive")
	cfg := config("n2", membership.RoleStorage)
	cfg.RetryJoin = []string{n1.Addr()}
	second := start(t, cfg)
	select {
	case err := <-second.ended:
		var ce *membership.ConflictError
		require.ErrorAs(t, err, &ce)
		require.Equal(t, "n2", ce.ID)
		require.ErrorContains(t, err, "name conflict")
	case <-time.After(bound):
		t.Fatal("the second n2 goes on")
	}
	sees(t, n1, "n1:alive", "n2:alive", "n3:alive")
	require.Empty(t, n1.ended)
}

// A peer that accepts and says nothing holds a Join; Close ends it.
func TestCloseEndsAJoin(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer lis.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		conn, err := lis.Accept()
		if err == nil {
			accepted <- conn
		}
	}()
	g, err := membership.Open(config("n1", membership.RoleStorage))
	require.NoError(t, err)
	joined := make(chan error, 1)
	go func() {
		_, err := g.Join([]string{lis.Addr().String()})
		joined <- err
	}()
	conn := <-accepted
	defer conn.Close()
	began := time.Now()
	require.NoError(t, g.Close())
	require.Error(t, <-joined)
	require.Less(t, time.Since(began), 8*time.Second, "memberlist itself waits 10 s")

	require.NoError(t, g.Close(), "twice is harmless")
	_, err = g.Join([]string{lis.Addr().String()})
	require.ErrorIs(t, err, membership.ErrClosed)
	require.ErrorIs(t, g.Leave(), membership.ErrClosed)
	require.NoError(t, g.Run(t.Context()))
	require.Len(t, g.Members(), 1)
}

func TestOpenRefuses(t *testing.T) {
	taken := start(t, config("n1", membership.RoleStorage))
	for name, tc := range map[string]struct {
		change func(*membership.Config)
		says   string
	}{
		"no id":                  {func(c *membership.Config) { c.ID = "" }, "no id"},
		"role client":            {func(c *membership.Config) { c.Role = "client" }, `"client"`},
		"short key":              {func(c *membership.Config) { c.Key = []byte("short") }, "5 bytes"},
		"long label":             {func(c *membership.Config) { c.Label = strings.Repeat("x", 256) }, "label"},
		"long tags":              {func(c *membership.Config) { c.Tags.Version = strings.Repeat("x", 600) }, "512"},
		"address in use":         {func(c *membership.Config) { c.BindAddr = taken.Addr() }, taken.Addr()},
		"address without a port": {func(c *membership.Config) { c.BindAddr = "127.0.0.1" }, "missing port"},
		"advertises any":         {func(c *membership.Config) { c.AdvertiseAddr = "0.0.0.0:0" }, "nobody can reach"},
		"snapshot in no place":   {func(c *membership.Config) { c.SnapshotPath = "/nonexistent/serf" }, "snapshot"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config("n2", membership.RoleStorage)
			cfg.Registerer = prometheus.NewPedanticRegistry()
			tc.change(&cfg)
			_, err := membership.Open(cfg)
			require.ErrorContains(t, err, tc.says)
		})
	}
}

func TestAddresses(t *testing.T) {
	cfg := config("n1", membership.RoleStorage)
	cfg.BindAddr, cfg.AdvertiseAddr = "localhost:0", "127.0.0.2:7000"
	n1 := start(t, cfg)
	host, port, err := net.SplitHostPort(n1.Addr())
	require.NoError(t, err)
	require.True(t, net.ParseIP(host).IsLoopback())
	require.NotEqual(t, "0", port)
	require.Equal(t, "127.0.0.2:7000", find(n1, "n1").GossipAddr)
}
