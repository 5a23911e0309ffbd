package bootstrap

import (
	"fmt"
	"hash/crc32"
	"testing"

	"github.com/stretchr/testify/require"
)

func FuzzPromise(f *testing.F) {
	f.Add(`{"cluster":"0f0e0d0c-0b0a-4908-8706-050403020100","initiator":"a","servers":["a","b"]}`)
	f.Add(`null`)
	f.Fuzz(func(t *testing.T, line string) {
		_, _ = decode([]byte(line))
		p, reason := decode(fmt.Appendf(nil, "%s\n%08x\n", line, crc32.Checksum([]byte(line), castagnoli)))
		if reason != "" {
			return
		}
		require.NoError(t, p.check())
		b, err := encode(p)
		require.NoError(t, err)
		again, reason := decode(b)
		require.Empty(t, reason)
		require.True(t, p.Equal(again))
	})
}
