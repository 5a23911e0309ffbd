package agent

import (
	"errors"
	"slices"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
	"github.com/logd-io/logd/pkg/membership"
	"github.com/logd-io/logd/pkg/replica"
)

// keyring gives gossip's keyring the shape the server asks for.
type keyring struct{ g *membership.Gossip }

func (k keyring) ListKeys() (*nodev1.Keyring, error) { return toAPI(k.g.Keyring()) }

func (k keyring) InstallKey(key []byte) (*nodev1.Keyring, error) { return toAPI(k.g.InstallKey(key)) }

func (k keyring) UseKey(id string, force bool) (*nodev1.Keyring, error) {
	return toAPI(k.g.UseKey(id, force))
}

func (k keyring) RemoveKey(id string, force bool) (*nodev1.Keyring, error) {
	return toAPI(k.g.RemoveKey(id, force))
}

func toAPI(ring membership.Keyring, err error) (*nodev1.Keyring, error) {
	var refused *membership.KeyringError
	switch {
	case errors.As(err, &refused):
		return nil, apierr.Invalid{Why: refused.Error()}
	case errors.Is(err, membership.ErrClosed):
		return nil, apierr.Draining{}
	case err != nil:
		return nil, err
	}
	out := &nodev1.Keyring{Members: uint32(ring.Members), Answered: uint32(ring.Answered), Down: ring.Down}
	for _, key := range ring.Keys {
		out.Keys = append(out.Keys, &nodev1.GossipKey{Id: key.ID, Has: uint32(key.Has), Speaks: uint32(key.Speaks)})
	}
	return out, nil
}

// gone says that a node is not in the Raft configuration. One that was removed never
// comes back by its id; one that was not taken in yet starts with its configuration.
func (a *Agent) gone(id string) bool {
	peers := a.replica.Peers()
	return len(peers) > 0 && !slices.ContainsFunc(peers, func(p replica.Peer) bool { return p.ID == id })
}
