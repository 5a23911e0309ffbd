package membership_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/internal/testutil"
	"github.com/logd-io/logd/pkg/membership"
)

// logged keeps what is logged.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.b.String(), text)
}

func (l *logged) logger() hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Level: hclog.Info, Output: l})
}

func gauge(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// The events of a member are not taken until there is no room for more. Once they are,
// the list is that of Serf.
func TestEventsOverflow(t *testing.T) {
	g, release, err := membership.OpenHeld(config("n1", membership.RoleStorage))
	require.NoError(t, err)
	released := sync.OnceFunc(release)
	n1 := run(t, g)
	t.Cleanup(released) // before g is closed
	require.NoError(t, g.FillEvents())
	testutil.Eventually(t, bound, g.EventsFull)
	second := config("n2", membership.RoleStorage)
	second.RetryJoin = []string{g.Addr()}
	n2 := start(t, second)
	sees(t, n2, "n1:alive", "n2:alive")
	require.NoError(t, g.EventsFull(), "the event of n2 found no room")
	sees(t, n1, "n1:alive")
	released()
	sees(t, n1, "n1:alive", "n2:alive")
}

// Without UDP the members find each other, see one fail and come back, and go on. They
// say so, and that it is over.
func TestUDPBlocked(t *testing.T) {
	var out logged
	reg := prometheus.NewPedanticRegistry()
	first := config("n1", membership.RoleStorage)
	first.Logger, first.Registerer = out.logger(), reg
	n1 := start(t, first)
	n1.Deafen(true)
	silent := func(want float64) {
		t.Helper()
		testutil.Eventually(t, bound, func() error {
			if got := gauge(t, reg, "logd_gossip_udp_silent"); got != want {
				return fmt.Errorf("%v", got)
			}
			return nil
		})
	}
	join := func(cfg membership.Config) *running {
		cfg.RetryJoin = []string{n1.Addr()}
		g := start(t, cfg)
		g.Deafen(true)
		return g
	}
	n2 := join(config("n2", membership.RoleStorage))
	third := config("n3", membership.RoleStorage)
	n3 := join(third)
	p1 := join(config("p1", membership.RoleProxy))
	for _, g := range []*running{n1, n2, n3, p1} {
		sees(t, g, "n1:alive", "n2:alive", "n3:alive", "p1:alive")
	}
	silent(1)
	require.True(t, out.has("none of their gossip comes over UDP"))
	sees(t, n1, "n1:alive", "n2:alive", "n3:alive", "p1:alive")

	third.BindAddr = n3.Addr()
	require.NoError(t, n3.stop())
	for _, g := range []*running{n1, n2, p1} {
		sees(t, g, "n1:alive", "n2:alive", "n3:failed", "p1:alive")
	}
	join(third)
	for _, g := range []*running{n1, n2, p1} {
		sees(t, g, "n1:alive", "n2:alive", "n3:alive", "p1:alive")
	}
	n1.Deafen(false)
	silent(0)
	require.True(t, out.has("over UDP again"))
}

// One that is alone expects no packets.
func TestAloneIsNotSilent(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	cfg := config("n1", membership.RoleStorage)
	cfg.Registerer = reg
	start(t, cfg)
	require.Zero(t, gauge(t, reg, "logd_gossip_udp_silent"))
}

// A snapshot that is cut short or damaged is used as far as it goes.
func TestDamagedSnapshot(t *testing.T) {
	n1 := start(t, config("n1", membership.RoleStorage))
	alive := "alive: n1 " + n1.Addr() + "\n"
	made := 1
	for name, tc := range map[string]struct {
		text string
		says string // empty: nothing
	}{
		"whole":                  {"alive: n2 127.0.0.1:1\n" + alive + "clock: 7\nevent-clock: 0\nquery-clock: 3\nleave\n", ""},
		"cut short":              {alive + "not-alive: n", "lines_left_out=1"},
		"cut in the address":     {alive + "alive: n3 127.0.", "lines_left_out=1"},
		"zeros at the end":       {alive + strings.Repeat("\x00", 4096), "lines_left_out=1"},
		"zeros in it":            {"clock: 3\n" + strings.Repeat("\x00", 64<<10) + "\n" + alive, "lines_left_out=1"},
		"no snapshot of Serf":    {"{\"version\": 2}\n\xff\xfe\n" + alive, "lines_left_out=2"},
		"no clock":               {"clock: -1\n" + alive, "lines_left_out=1"},
		"no address":             {"alive: n9 nowhere\nalive: \n" + alive, "lines_left_out=2"},
		"gone when it was seen":  {alive + "not-alive: n1\n", ""},
		"one that is long ended": {"alive: n8 127.0.0.1:1\n" + alive + "not-alive: n8\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var out logged
			made++
			cfg := config(fmt.Sprintf("n%d", made), membership.RoleStorage)
			cfg.SnapshotPath, cfg.Logger = snapshot(t), out.logger()
			require.NoError(t, os.WriteFile(cfg.SnapshotPath, []byte(tc.text), 0o600))
			n2 := start(t, cfg)
			require.Equal(t, tc.says != "", out.has("damaged or cut short"))
			require.True(t, out.has(tc.says), "%s", &out.b)
			testutil.EventuallyOn(t, bound, n2.Changes, func() error {
				if m := find(n2, "n1"); m.State != membership.Alive {
					return fmt.Errorf("n1 is %+v", m)
				}
				return nil
			})
			require.NoError(t, n2.stop())

			var again logged // what was damaged is not read twice
			cfg.Logger, cfg.BindAddr = again.logger(), n2.Addr()
			n2 = start(t, cfg)
			require.False(t, again.has("damaged or cut short"))
			require.NoError(t, n2.stop())
		})
	}
}

// A file that grew without end, which Serf would read whole, is forgotten.
func TestSnapshotIsBounded(t *testing.T) {
	var out logged
	cfg := config("n1", membership.RoleStorage)
	cfg.SnapshotPath, cfg.Logger = snapshot(t), out.logger()
	f, err := os.Create(cfg.SnapshotPath)
	require.NoError(t, err)
	require.NoError(t, f.Truncate(1<<40)) // takes no room
	require.NoError(t, f.Close())
	start(t, cfg)
	require.True(t, out.has("snapshot is forgotten"))
	info, err := os.Stat(cfg.SnapshotPath)
	require.NoError(t, err)
	require.Less(t, info.Size(), int64(64<<10))
}

// What is kept of the members is there before anything else happens, and who left is
// not in it.
func TestSnapshotIsWrittenAtOnce(t *testing.T) {
	n1 := start(t, config("n1", membership.RoleStorage))
	cfg := config("n2", membership.RoleStorage)
	cfg.SnapshotPath, cfg.RetryJoin = snapshot(t), []string{n1.Addr()}
	n2 := start(t, cfg)
	proxy := config("p1", membership.RoleProxy)
	proxy.RetryJoin = cfg.RetryJoin
	p1 := start(t, proxy)
	keeps := func(want ...*running) {
		t.Helper()
		var text string
		for _, g := range want {
			text += "alive: " + g.id(t) + " " + g.Addr() + "\n"
		}
		testutil.Eventually(t, bound, func() error {
			got, err := os.ReadFile(cfg.SnapshotPath)
			if err == nil && string(got) != text {
				err = fmt.Errorf("%s\nwant\n%s", got, text)
			}
			return err
		})
	}
	keeps(n1, n2, p1)
	require.NoError(t, p1.Leave())
	keeps(n1, n2)
	require.NoError(t, n1.stop()) // it may come back
	sees(t, n2, "n1:failed", "n2:alive", "p1:left")
	keeps(n1, n2)
	// A start that reaches nobody does not make it forget.
	require.NoError(t, n2.stop())
	cfg.RetryJoin = nil
	again := start(t, cfg)
	sees(t, again, "n2:alive")
	testutil.Eventually(t, bound, func() error {
		got, err := os.ReadFile(cfg.SnapshotPath)
		if err == nil && !strings.Contains(string(got), " "+n1.Addr()+"\n") {
			err = fmt.Errorf("%s", got)
		}
		return err
	})
}

// A snapshot that cannot be written is said, once, and nothing else suffers.
func TestSnapshotCannotBeWritten(t *testing.T) {
	var out logged
	cfg := config("n1", membership.RoleStorage)
	cfg.SnapshotPath, cfg.Logger = snapshot(t), out.logger()
	require.NoError(t, os.Mkdir(cfg.SnapshotPath+".tmp", 0o700))
	n1 := start(t, cfg)
	second := config("n2", membership.RoleStorage)
	second.RetryJoin = []string{n1.Addr()}
	start(t, second)
	sees(t, n1, "n1:alive", "n2:alive")
	testutil.Eventually(t, bound, func() error {
		if !out.has("is not kept for the next start") {
			return errors.New("not said")
		}
		return nil
	})
}

// All stop one after the other, so that the last one remembers nobody as alive, and
// it is the last to start again: with nobody to join, the first to start find it.
func TestAllRejoinFromSnapshots(t *testing.T) {
	const members = 3
	cfgs := make([]membership.Config, members)
	gs := make([]*running, members)
	want := make([]string, members)
	for i := range members {
		id := fmt.Sprintf("n%d", i+1)
		want[i] = id + ":alive"
		cfgs[i] = config(id, membership.RoleStorage)
		cfgs[i].SnapshotPath = snapshot(t)
		gs[i] = start(t, cfgs[i])
		if i > 0 {
			_, err := gs[i].Join([]string{gs[0].Addr()})
			require.NoError(t, err)
		}
	}
	for i, g := range gs {
		sees(t, g, want...)
		cfgs[i].BindAddr = g.Addr()
	}
	for i := members - 1; i >= 0; i-- {
		var left []string
		for j := range members {
			state := membership.Alive
			if j > i {
				state = membership.Failed
			}
			left = append(left, fmt.Sprintf("n%d:%v", j+1, state))
		}
		sees(t, gs[i], left...)
		require.NoError(t, gs[i].stop())
	}
	for i := members - 1; i >= 0; i-- {
		gs[i] = start(t, cfgs[i])
	}
	for _, g := range gs {
		sees(t, g, want...)
	}
}

// A proxy comes back under another id at the address it had, which is in its snapshot:
// it does not take itself for company.
func TestOwnAddressIsNoCompany(t *testing.T) {
	n1 := start(t, config("n1", membership.RoleStorage))
	cfg := config("p1", membership.RoleProxy)
	cfg.SnapshotPath = snapshot(t)
	p1 := start(t, cfg)
	_, err := p1.Join([]string{n1.Addr()})
	require.NoError(t, err)
	sees(t, p1, "n1:alive", "p1:alive")
	require.NoError(t, p1.stop())
	require.NoError(t, os.WriteFile(cfg.SnapshotPath, []byte("alive: p1 "+p1.Addr()+"\nalive: n1 "+n1.Addr()+"\n"), 0o600))
	cfg.ID, cfg.BindAddr = "p2", p1.Addr()
	var out logged
	cfg.Logger = out.logger()
	p2 := start(t, cfg)
	testutil.EventuallyOn(t, bound, p2.Changes, func() error {
		if m := find(p2, "n1"); m.State != membership.Alive {
			return fmt.Errorf("n1 is %+v", m)
		}
		return nil
	})
	require.False(t, out.has(p1.Addr()), "%s", &out.b)
}

// What will be said of a node later must fit beside what it says at first.
func TestThereIsRoomForLaterTags(t *testing.T) {
	cfg := config("n1", membership.RoleStorage)
	cfg.Tags = membership.Tags{RPCAddr: "n1:8400", Version: ""}
	for {
		g, err := membership.Open(cfg)
		var te *membership.TagsError
		if errors.As(err, &te) {
			break
		}
		require.NoError(t, err)
		now := cfg.Tags
		now.HasState, now.Draining, now.Cluster = true, true, uuidA
		ours, serfs := g.SayTags(now)
		require.NoError(t, g.Close())
		require.NoError(t, ours)
		require.NoError(t, serfs)
		require.Less(t, len(cfg.Tags.Version), membership.TagsBytes)
		cfg.Tags.Version += strings.Repeat("v", 16)
	}
	require.NotEmpty(t, cfg.Tags.Version)
}

// Whatever our check lets pass at run time, Serf takes.
func FuzzTagsAreTaken(f *testing.F) {
	g, err := membership.Open(membership.Config{ID: "n1", Role: membership.RoleStorage, BindAddr: "127.0.0.1:0", Label: "test", Key: key})
	require.NoError(f, err)
	f.Cleanup(func() { require.NoError(f, g.Close()) })
	f.Add("n1:8400", 253, 3, "v1", 1)
	f.Add("é", 40, 99, "v", 100)
	f.Add("", 0, 0, "", 0)
	f.Fuzz(func(t *testing.T, rpc string, rpcs, expect int, version string, versions int) {
		repeat := func(s string, n int) string {
			if len(s) == 0 || n <= 0 {
				return s
			}
			return strings.Repeat(s, 1+n%(2*membership.TagsBytes/len(s)+1))
		}
		tags := membership.Tags{
			RPCAddr: repeat(rpc, rpcs), Version: repeat(version, versions), Expect: expect,
			HasState: true, Draining: true, Cluster: uuidA,
		}
		ours, serfs := g.SayTags(tags)
		if ours != nil {
			return
		}
		require.NoError(t, serfs)
	})
}
