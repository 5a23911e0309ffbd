package server

import (
	"context"

	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/apierr"
)

// ListKeys tells how far each gossip key has got.
func (s *Server) ListKeys(context.Context, *nodev1.ListKeysRequest) (*nodev1.Keyring, error) {
	return s.keyring(Keyring.ListKeys)
}

// InstallKey gives all members of gossip a key.
func (s *Server) InstallKey(ctx context.Context, req *nodev1.InstallKeyRequest) (*nodev1.Keyring, error) {
	s.logger.Info("gossip key to be installed", "by", callerOf(ctx).identity.Name)
	return s.keyring(func(k Keyring) (*nodev1.Keyring, error) { return k.InstallKey(req.GetKey()) })
}

// UseKey has all members of gossip encrypt with a key.
func (s *Server) UseKey(ctx context.Context, req *nodev1.UseKeyRequest) (*nodev1.Keyring, error) {
	s.logger.Info("gossip key to be used", "by", callerOf(ctx).identity.Name, "key", req.GetId(), "force", req.GetForce())
	return s.keyring(func(k Keyring) (*nodev1.Keyring, error) { return k.UseKey(req.GetId(), req.GetForce()) })
}

// RemoveKey has all members of gossip forget a key.
func (s *Server) RemoveKey(ctx context.Context, req *nodev1.RemoveKeyRequest) (*nodev1.Keyring, error) {
	s.logger.Info("gossip key to be removed", "by", callerOf(ctx).identity.Name, "key", req.GetId(), "force", req.GetForce())
	return s.keyring(func(k Keyring) (*nodev1.Keyring, error) { return k.RemoveKey(req.GetId(), req.GetForce()) })
}

func (s *Server) keyring(do func(Keyring) (*nodev1.Keyring, error)) (*nodev1.Keyring, error) {
	if s.cfg.Keyring == nil {
		return nil, apierr.Invalid{Why: "this node is in no gossip"}
	}
	return do(s.cfg.Keyring)
}
