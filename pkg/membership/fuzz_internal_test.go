package membership

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func FuzzTags(f *testing.F) {
	f.Add("storage", "n1:8400", "1", "3", "", "v1", "0f0e0d0c-0b0a-4908-8706-050403020100")
	f.Add("proxy", "", "", "-1", "1", "", "")
	f.Fuzz(func(t *testing.T, role, rpc, state, expect, draining, version, cluster string) {
		m := map[string]string{tagRole: role, tagRPCAddr: rpc, tagState: state, tagExpect: expect, tagDraining: draining, tagVersion: version, tagCluster: cluster}
		r, tags, err := decodeTags(m)
		if err != nil {
			return
		}
		require.GreaterOrEqual(t, tags.Expect, 0)
		again, err := encodeTags(r, tags)
		if err != nil {
			return // longer than gossip carries
		}
		r2, tags2, err := decodeTags(again)
		require.NoError(t, err)
		require.Equal(t, r, r2)
		require.Equal(t, tags, tags2)
	})
}
