package membership_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/internal/testutil"
	"github.com/logd-io/logd/pkg/membership"
)

func TestMain(m *testing.M) { testutil.VerifyMain(m) }

// bound is for a machine that hangs; nothing here takes near as long.
const bound = time.Minute

var key = []byte("0123456789abcdef0123456789abcdef")

func config(id string, role membership.Role) membership.Config {
	return membership.Config{ID: id, Role: role, BindAddr: "127.0.0.1:0", Label: "test", Key: key}
}

// running is a Gossip whose Run goes on until stop.
type running struct {
	*membership.Gossip
	ended chan error // Run's result, sent once
	stop  func() error
}

func start(t *testing.T, cfg membership.Config) *running {
	t.Helper()
	g, err := membership.Open(cfg)
	require.NoError(t, err)
	return run(t, g)
}

func run(t *testing.T, g *membership.Gossip) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Gossip: g, ended: make(chan error, 1)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.ended <- g.Run(ctx)
	}()
	r.stop = func() error {
		cancel()
		<-done
		return g.Close()
	}
	t.Cleanup(func() { require.NoError(t, r.stop()) })
	return r
}

// id is who a member is to itself.
func (r *running) id(t *testing.T) string {
	t.Helper()
	for _, m := range r.Members() {
		if m.GossipAddr == r.Addr() {
			return m.ID
		}
	}
	t.Fatalf("%s is not among its members", r.Addr())
	return ""
}

// sees waits until g lists exactly the members, as id:state, in that order.
func sees(t *testing.T, g *running, want ...string) {
	t.Helper()
	testutil.EventuallyOn(t, bound, g.Changes, func() error {
		var got []string
		for _, m := range g.Members() {
			got = append(got, m.ID+":"+m.State.String())
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			return fmt.Errorf("%v, want %v", got, want)
		}
		return nil
	})
}

func find(g *running, id string) membership.Member {
	for _, m := range g.Members() {
		if m.ID == id {
			return m
		}
	}
	return membership.Member{}
}

func snapshot(t *testing.T) string { return filepath.Join(t.TempDir(), "serf.snapshot") }
