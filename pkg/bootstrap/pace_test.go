package bootstrap_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/bootstrap"
)

// What is the same for a day is said often enough to be found, and no more; ports that
// differ make nothing new, and two things that take turns are said as often as each.
func TestPace(t *testing.T) {
	for name, what := range map[string]func(second int) string{
		"the same": func(int) string { return "join through n1: it does not answer" },
		"a port":   func(s int) string { return fmt.Sprintf("read 127.0.0.1:%d: connection reset", 30000+s) },
		"in turns": func(s int) string { return "join through " + []string{"a", "b"}[s%2] },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var pace bootstrap.Pace
				said, last := 0, 0
				for second := range 24 * 60 * 60 {
					if pace.Due(what(second)) {
						said++
						require.LessOrEqual(t, second-last, 16*60)
						last = second
					}
					time.Sleep(time.Second)
				}
				require.Greater(t, said, 24*4)
				require.Less(t, said, 2*(24*4+10))
			})
		})
	}
}

// Whatever is said, memory is bounded.
func TestPaceForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pace bootstrap.Pace
		for i := range 1000 {
			time.Sleep(time.Millisecond)
			require.True(t, pace.Due(fmt.Sprintf("%c%c", 'a'+i%26, 'a'+i/26)))
		}
		require.False(t, pace.Due(fmt.Sprintf("%c%c", 'a'+999%26, 'a'+999/26)), "the newest are known")
		require.True(t, pace.Due("aa"))
	})
}
