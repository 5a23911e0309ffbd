package membership_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/internal/testutil"
	"github.com/logd-io/logd/pkg/membership"
)

var next = bytes.Repeat([]byte("k"), membership.KeyBytes)

// keyed is a cluster of two nodes that keep their keys and a proxy that does not.
func keyed(t *testing.T) (n1, n2, p1 *running, n2conf membership.Config) {
	t.Helper()
	node := func(id string) membership.Config {
		cfg := config(id, membership.RoleStorage)
		cfg.KeyringPath = filepath.Join(t.TempDir(), "keyring")
		return cfg
	}
	n1 = start(t, node("n1"))
	join := func(cfg membership.Config) *running {
		cfg.RetryJoin = []string{n1.Addr()}
		return start(t, cfg)
	}
	n2conf = node("n2")
	n2conf.RetryJoin = []string{n1.Addr()}
	n2, p1 = start(t, n2conf), join(config("p1", membership.RoleProxy))
	for _, g := range []*running{n1, n2, p1} {
		sees(t, g, "n1:alive", "n2:alive", "p1:alive")
	}
	return n1, n2, p1, n2conf
}

func refused(t *testing.T, err error, says string) {
	t.Helper()
	var ke *membership.KeyringError
	require.ErrorAs(t, err, &ke)
	require.ErrorContains(t, err, says)
	require.NotContains(t, err.Error(), "kkkk")
}

func TestKeysAreRotated(t *testing.T) {
	n1, n2, p1, n2conf := keyed(t)
	before, after := membership.KeyID(key), membership.KeyID(next)
	ring, err := n1.Keyring()
	require.NoError(t, err)
	require.Equal(t, membership.Keyring{Keys: []membership.Key{{ID: before, Has: 3, Speaks: 3}}, Members: 3, Answered: 3}, ring)

	_, err = n1.UseKey(after, false)
	refused(t, err, "no member has a key")
	ring, err = p1.InstallKey(next) // whoever is asked
	require.NoError(t, err)
	require.ElementsMatch(t, []membership.Key{{ID: before, Has: 3, Speaks: 3}, {ID: after, Has: 3}}, ring.Keys)

	// A proxy that comes with the old key only would be cut off: one that comes when
	// nobody passes the news of the new one on any more.
	for _, g := range []*running{n1, n2, p1} {
		testutil.Eventually(t, time.Minute, func() error {
			if n := g.QueriesOnTheirWay(); n != "0" {
				return fmt.Errorf("%s queries are on their way", n)
			}
			return nil
		})
	}
	late := config("p2", membership.RoleProxy)
	late.RetryJoin = []string{n1.Addr()}
	start(t, late)
	sees(t, n1, "n1:alive", "n2:alive", "p1:alive", "p2:alive")
	_, err = n1.UseKey(after, false)
	refused(t, err, "only 3 of 4 members have key "+after)
	_, err = n1.InstallKey(next)
	require.NoError(t, err)

	_, err = n1.RemoveKey(before, false)
	refused(t, err, "4 of 4 members encrypt with key "+before)
	ring, err = n1.UseKey(after, false)
	require.NoError(t, err)
	require.ElementsMatch(t, []membership.Key{{ID: before, Has: 4}, {ID: after, Has: 4, Speaks: 4}}, ring.Keys)
	_, err = n1.RemoveKey(after, false)
	refused(t, err, "encrypt with key "+after)
	ring, err = n2.RemoveKey(before, false)
	require.NoError(t, err)
	require.Equal(t, []membership.Key{{ID: after, Has: 4, Speaks: 4}}, ring.Keys)

	// A restart goes on with the keys of the file, whatever the configuration says.
	require.NoError(t, n2.stop())
	n2 = start(t, n2conf)
	sees(t, n2, "n1:alive", "n2:alive", "p1:alive", "p2:alive")
	info, err := os.Stat(n2conf.KeyringPath)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	// Who has the old key alone is out; who has both comes in.
	stale := start(t, config("x1", membership.RoleProxy))
	_, err = stale.Join([]string{n1.Addr()})
	require.Error(t, err)
	both := config("p3", membership.RoleProxy)
	both.Key, both.OtherKeys = next, [][]byte{key}
	_, err = start(t, both).Join([]string{n1.Addr()})
	require.NoError(t, err)
}

// A node that is down has only the keys of before.
func TestKeysWaitForNodesThatAreDown(t *testing.T) {
	n1, n2, p1, _ := keyed(t)
	require.NoError(t, p1.stop()) // a proxy that is gone comes back with its configuration
	sees(t, n1, "n1:alive", "n2:alive", "p1:failed")
	_, err := n1.InstallKey(next)
	require.NoError(t, err)
	require.NoError(t, n2.stop())
	sees(t, n1, "n1:alive", "n2:failed", "p1:failed")
	ring, err := n1.Keyring()
	require.NoError(t, err)
	require.Equal(t, []string{"n2"}, ring.Down)
	_, err = n1.UseKey(membership.KeyID(next), false)
	refused(t, err, "n2")
	_, err = n1.UseKey(membership.KeyID(next), true)
	require.NoError(t, err)
	_, err = n1.RemoveKey(membership.KeyID(key), false)
	refused(t, err, "n2")
}

// One that was removed does not come back, and is not waited for.
func TestKeysDoNotWaitForNodesThatAreGone(t *testing.T) {
	conf := config("n1", membership.RoleStorage)
	conf.Gone = func(id string) bool { return id == "n2" }
	n1 := start(t, conf)
	var others []*running
	for _, id := range []string{"n2", "n3"} {
		c := config(id, membership.RoleStorage)
		c.RetryJoin = []string{n1.Addr()}
		others = append(others, start(t, c))
	}
	sees(t, n1, "n1:alive", "n2:alive", "n3:alive")
	_, err := n1.InstallKey(next)
	require.NoError(t, err)
	require.NoError(t, others[0].stop())
	sees(t, n1, "n1:alive", "n2:failed", "n3:alive")
	ring, err := n1.UseKey(membership.KeyID(next), false)
	require.NoError(t, err)
	require.Empty(t, ring.Down)
	require.NoError(t, others[1].stop())
	sees(t, n1, "n1:alive", "n2:failed", "n3:failed")
	_, err = n1.RemoveKey(membership.KeyID(key), false)
	refused(t, err, "n3")
	require.NotContains(t, err.Error(), "n2")
}

func TestKeysAreBounded(t *testing.T) {
	n1 := start(t, config("n1", membership.RoleStorage))
	for i := range byte(7) {
		_, err := n1.InstallKey(bytes.Repeat([]byte{i}, membership.KeyBytes))
		require.NoError(t, err)
	}
	_, err := n1.InstallKey(next)
	refused(t, err, "8 keys already")
	_, err = n1.InstallKey([]byte("short"))
	refused(t, err, "5 bytes")
}

func TestKeysWithoutEncryption(t *testing.T) {
	cfg := config("n1", membership.RoleStorage)
	cfg.Key = nil
	_, err := start(t, cfg).Keyring()
	refused(t, err, "not encrypted")
}

// Serf writes the file in place. What a power loss leaves of it must not keep the
// node down, and the keys in it must not get into the log.
func TestKeyringThatIsDamaged(t *testing.T) {
	for name, text := range map[string]string{"empty": "", "half": `["MDEyMzQ1`, "no list": "{}", "no keys": "[]", "no key": `["a"]`} {
		t.Run(name, func(t *testing.T) {
			n1 := start(t, config("n1", membership.RoleStorage))
			cfg := config("n2", membership.RoleStorage)
			cfg.KeyringPath = filepath.Join(t.TempDir(), "keyring")
			require.NoError(t, os.WriteFile(cfg.KeyringPath, fmt.Append(nil, text), 0o600))
			cfg.RetryJoin = []string{n1.Addr()}
			var said logged // a probe of memberlist's may outlive it
			cfg.Logger = said.logger()
			n2 := start(t, cfg)
			sees(t, n1, "n1:alive", "n2:alive")
			require.NoError(t, n2.stop())
			require.True(t, said.has("gossip keyring cannot be read"))
			require.False(t, said.has("MDEy"))
		})
	}
}
