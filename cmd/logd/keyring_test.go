package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/internal/cli"
	nodev1 "github.com/logd-io/logd/pkg/api/node/v1"
	"github.com/logd-io/logd/pkg/membership"
)

func TestKeyringIsShown(t *testing.T) {
	show := func(r *nodev1.Keyring) string {
		var out bytes.Buffer
		require.NoError(t, showKeyring(&out, r, cli.Table))
		return out.String()
	}
	whole := &nodev1.Keyring{Members: 4, Answered: 4, Keys: []*nodev1.GossipKey{{Id: "0123456789ab", Has: 4, Speaks: 4}}}
	require.Regexp(t, `^KEY .*\n0123456789ab +4 of 4 +4 of 4\n$`, show(whole))
	var out bytes.Buffer
	require.NoError(t, showKeyring(&out, whole, cli.JSON))
	require.JSONEq(t, `[{"id": "0123456789ab", "members_with_key": 4, "members_encrypting": 4, "members": 4}]`, out.String())
	amid := &nodev1.Keyring{
		Members: 4, Answered: 3, Down: []string{"node3.1a2b3c4d"},
		Keys: []*nodev1.GossipKey{{Id: "0123456789ab", Has: 3, Speaks: 3}, {Id: "ba9876543210", Has: 2}},
	}
	for _, part := range []string{"1 of 4 members have not answered", "Down, with the keys they had: node3.1a2b3c4d", "a proxy starts with those of its"} {
		require.Contains(t, show(amid), part)
	}
}

func TestGossipKeysAreNamed(t *testing.T) {
	text := membership.GenerateKey()
	key, err := membership.ParseKey(text)
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(file, []byte(text+"\n"), 0o600))
	id := membership.KeyID(key)
	for _, arg := range []string{id, file, "-"} {
		got, err := gossipKeyID(cli.Env{Stdin: strings.NewReader(text)}, arg)
		require.NoError(t, err, arg)
		require.Equal(t, id, got)
	}
	_, err = gossipKeyID(cli.Env{}, filepath.Join(t.TempDir(), "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = gossipKeyID(cli.Env{Stdin: strings.NewReader("c2hvcnQ=")}, "-")
	require.ErrorContains(t, err, "keygen")
}
