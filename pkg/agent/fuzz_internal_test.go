package agent

import (
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/internal/testutil"
	"github.com/logd-io/logd/pkg/membership"
	"github.com/logd-io/logd/pkg/vfs"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

// Whatever is in the file, a node starts, and learns addresses again.
func FuzzAddressBook(f *testing.F) {
	f.Add([]byte(`{"n1.00000001":"10.0.0.1:8400"}`))
	f.Add([]byte(`null`))
	f.Add([]byte(`{"a":1}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		fs := memfs.New()
		require.NoError(t, vfs.WriteFileAtomic(fs, "/peers.json", text))
		var b *addressBook
		var err error
		used := testutil.Allocated(func() { b, err = openAddressBook(fs, "/peers.json", hclog.NewNullLogger()) })
		require.NoError(t, err)
		require.Less(t, used, uint64(1<<20+64*len(text)))
		require.NoError(t, b.learn([]membership.Member{{ID: "n9.00000009", Role: membership.RoleStorage, RPCAddr: "10.0.0.9:8400"}}))
		require.Equal(t, "10.0.0.9:8400", b.address("n9.00000009"))
		b, err = openAddressBook(fs, "/peers.json", hclog.NewNullLogger())
		require.NoError(t, err)
		require.Equal(t, "10.0.0.9:8400", b.address("n9.00000009"))
	})
}
