package agent

import (
	"errors"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/membership"
	"github.com/logd-io/logd/pkg/vfs"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

// full is a filesystem on which nothing new can be made while it is on.
type full struct {
	vfs.FS
	on bool
}

var errFull = errors.New("no space left on device")

func (f *full) Create(name string) (vfs.File, error) {
	if f.on {
		return nil, errFull
	}
	return f.FS.Create(name)
}

// A disk that is full must not end a node over a file it can do without.
func TestAddressBookOutlivesAFullDisk(t *testing.T) {
	disk := &full{FS: memfs.New()}
	require.NoError(t, disk.MkdirAll("/data"))
	b, err := openAddressBook(disk, "/data/peers.json", hclog.NewNullLogger())
	require.NoError(t, err)
	members := []membership.Member{
		{ID: "n1.00000001", Role: membership.RoleStorage, RPCAddr: "10.0.0.1:8400"},
		{ID: "proxy.00000002", Role: membership.RoleProxy, RPCAddr: "10.0.0.2:8410"},
	}
	disk.on = true
	require.ErrorIs(t, b.learn(members), errFull)
	require.Equal(t, "10.0.0.1:8400", b.address("n1.00000001"), "known all the same")
	require.Empty(t, b.address("proxy.00000002"), "a proxy is nobody's peer")

	disk.on = false
	require.NoError(t, b.learn(members))
	again, err := openAddressBook(disk, "/data/peers.json", hclog.NewNullLogger())
	require.NoError(t, err)
	require.Equal(t, "10.0.0.1:8400", again.address("n1.00000001"))
}

// A damaged address book costs time, not the node: gossip fills it again.
func TestAddressBookStartsAnewWhenDamaged(t *testing.T) {
	for name, text := range map[string]string{"empty": "", "cut off": `{"n1.00000001": "10.0`, "something else": "[1]", "nothing": "null", "huge": string(make([]byte, maxJSON+1))} {
		disk := memfs.New()
		require.NoError(t, disk.MkdirAll("/data"))
		require.NoError(t, vfs.WriteFileAtomic(disk, "/data/peers.json", []byte(text)))
		b, err := openAddressBook(disk, "/data/peers.json", hclog.NewNullLogger())
		require.NoError(t, err, name)
		require.NoError(t, b.learn([]membership.Member{{ID: "n1.00000001", Role: membership.RoleStorage, RPCAddr: "10.0.0.1:8400"}}), name)
		again, err := openAddressBook(disk, "/data/peers.json", hclog.NewNullLogger())
		require.NoError(t, err, name)
		require.Equal(t, "10.0.0.1:8400", again.address("n1.00000001"), name)
	}
}
