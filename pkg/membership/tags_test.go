package membership

import (
	"errors"
	"strings"
	"testing"

	"github.com/hashicorp/serf/serf"
	"github.com/stretchr/testify/require"
)

func TestTagsRoundTrip(t *testing.T) {
	for name, tags := range map[string]Tags{
		"nothing":    {},
		"all":        {RPCAddr: "n1.logd.svc:8400", HasState: true, Expect: 3, Draining: true, Version: "v1.2.3", Cluster: "9b2d6c1e-52a4-4d6e-9a68-2f0f5f2f8d01"},
		"new node":   {RPCAddr: "127.0.0.1:8400", Expect: 5},
		"only state": {HasState: true},
	} {
		for _, role := range []Role{RoleStorage, RoleProxy} {
			t.Run(name+" "+string(role), func(t *testing.T) {
				m, err := encodeTags(role, tags)
				require.NoError(t, err)
				gotRole, got, err := decodeTags(m)
				require.NoError(t, err)
				require.Equal(t, role, gotRole)
				require.Equal(t, tags, got)
			})
		}
	}
}

func TestTagsOfANewerMemberAreUnderstood(t *testing.T) {
	role, tags, err := decodeTags(map[string]string{"role": "proxy", "zone": "b", "st": "1"})
	require.NoError(t, err)
	require.Equal(t, RoleProxy, role)
	require.Equal(t, Tags{HasState: true}, tags)
}

func TestTagsRefused(t *testing.T) {
	var te *TagsError
	for name, m := range map[string]map[string]string{
		"no role":         {},
		"unknown role":    {"role": "king"},
		"admin":           {"role": "admin"},
		"expect no digit": {"role": "storage", "exp": "three"},
		"expect negative": {"role": "storage", "exp": "-1"},
	} {
		t.Run("decode "+name, func(t *testing.T) {
			_, _, err := decodeTags(m)
			require.ErrorAs(t, err, &te)
		})
	}
	_, err := encodeTags("king", Tags{})
	require.ErrorAs(t, err, &te)
	_, err = encodeTags(RoleStorage, Tags{Expect: -1})
	require.ErrorAs(t, err, &te)
	_, err = encodeTags(RoleStorage, Tags{RPCAddr: strings.Repeat("x", TagsBytes)})
	require.ErrorAs(t, err, &te)
}

// Whatever our check lets pass, memberlist takes: above its limit it panics. And
// a DNS name of the greatest length passes.
func TestTagsAtTheLimitAreTaken(t *testing.T) {
	tags := Tags{RPCAddr: strings.Repeat("x", 253) + ":65535", HasState: true, Expect: 100, Draining: true,
		Cluster: "9b2d6c1e-52a4-4d6e-9a68-2f0f5f2f8d01"}
	for {
		longer := tags
		longer.Version += "v"
		if _, err := encodeTags(RoleStorage, longer); err != nil {
			break
		}
		tags = longer
	}
	require.NotEmpty(t, tags.Version)
	g, err := Open(Config{ID: "n1", Role: RoleStorage, BindAddr: "127.0.0.1:0", Tags: tags})
	require.NoError(t, err)
	require.Len(t, g.Members(), 1)
	require.Equal(t, tags.Version, g.Members()[0].Version)
	require.NoError(t, g.Close())
}

func TestStates(t *testing.T) {
	for status, want := range map[serf.MemberStatus]State{
		serf.StatusAlive: Alive, serf.StatusFailed: Failed, serf.StatusLeft: Left, serf.StatusLeaving: Left,
	} {
		m, err := member(serf.Member{Name: "n", Status: status, Tags: map[string]string{"role": "storage"}})
		require.NoError(t, err)
		require.Equal(t, want, m.State, status.String())
	}
	_, err := member(serf.Member{Name: "n", Status: serf.StatusNone, Tags: map[string]string{"role": "storage"}})
	require.Error(t, err)
}

func TestKeys(t *testing.T) {
	a, b := GenerateKey(), GenerateKey()
	require.NotEqual(t, a, b)
	key, err := ParseKey(" " + a + "\n")
	require.NoError(t, err)
	require.Len(t, key, KeyBytes)
	for _, n := range []int{16, 24, 32} {
		require.NoError(t, checkKey(make([]byte, n)))
	}
	var ke *KeyError
	for _, s := range []string{"", "not base64!", "c2hvcnQ="} {
		_, err := ParseKey(s)
		require.True(t, errors.As(err, &ke), s)
		if s != "" {
			require.NotContains(t, err.Error(), s)
		}
	}
}
