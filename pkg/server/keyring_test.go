package server_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/server"
	"github.com/logd-io/logd/pkg/tlsconf"
)

// ring notes what it was asked.
type ring struct{ asked []string }

func (r *ring) note(what string) (*nodev1.Keyring, error) {
	r.asked = append(r.asked, what)
	return &nodev1.Keyring{Members: 3}, nil
}

func (r *ring) ListKeys() (*nodev1.Keyring, error) { return r.note("list") }
func (r *ring) InstallKey(key []byte) (*nodev1.Keyring, error) {
	return r.note("install " + string(key))
}
func (r *ring) UseKey(id string, force bool) (*nodev1.Keyring, error) {
	if force {
		id += " forced"
	}
	return r.note("use " + id)
}
func (r *ring) RemoveKey(id string, force bool) (*nodev1.Keyring, error) {
	if !force {
		return nil, apierr.Invalid{Why: "in use"}
	}
	return r.note("remove " + id)
}

func TestKeyring(t *testing.T) {
	k := &ring{}
	r := start(t, func(c *server.Config) { c.Keyring = k })
	a := r.admin()
	got, err := a.ListKeys(ctxOf(t), &nodev1.ListKeysRequest{})
	require.NoError(t, err)
	require.Equal(t, uint32(3), got.Members)
	_, err = a.InstallKey(ctxOf(t), &nodev1.InstallKeyRequest{Key: []byte("k")})
	require.NoError(t, err)
	_, err = a.UseKey(ctxOf(t), &nodev1.UseKeyRequest{Id: "1", Force: true})
	require.NoError(t, err)
	_, err = a.RemoveKey(ctxOf(t), &nodev1.RemoveKeyRequest{Id: "2"})
	require.Equal(t, apierr.ReasonInvalid, apierr.ReasonOf(err))
	require.Equal(t, []string{"list", "install k", "use 1 forced"}, k.asked)
	for _, role := range []tlsconf.Role{tlsconf.RoleClient, tlsconf.RoleProxy, tlsconf.RoleStorage} {
		_, err := nodev1.NewNodeClient(r.dial(role, "x")).UseKey(ctxOf(t), &nodev1.UseKeyRequest{Id: "1"})
		require.ErrorContains(t, err, "not for role", role)
	}
	require.Len(t, k.asked, 3)

	_, err = start(t).admin().ListKeys(ctxOf(t), &nodev1.ListKeysRequest{})
	require.Equal(t, apierr.ReasonInvalid, apierr.ReasonOf(err))
}
