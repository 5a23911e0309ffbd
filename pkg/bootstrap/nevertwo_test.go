package bootstrap_test

import (
	"fmt"
	"os"
	"path"
	"strconv"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/vfs"
)

// seedCount is how many histories a test looks at: LOGD_SEEDS, or a few.
func seedCount() uint64 {
	if n, err := strconv.ParseUint(os.Getenv("LOGD_SEEDS"), 10, 64); err == nil {
		return n
	}
	return 25
}

// Whatever dies when, and whatever is lost, there is never more than one list
// under one uuid; and when all are up and hear each other, there is one.
func TestNeverTwoClusters(t *testing.T) {
	seeds := seedCount()
	for _, n := range []int{3, 5} {
		t.Run(fmt.Sprintf("%d nodes", n), func(t *testing.T) {
			for seed := range seeds {
				synctest.Test(t, func(t *testing.T) {
					w := simulate(t, seed, n, n)
					require.Empty(t, w.broken, "seed %d", seed)
					require.Len(t, w.began, 1, "seed %d", seed)
					require.Empty(t, w.stops, "seed %d", seed)
					states := map[string]bool{}
					for _, n := range w.nodes {
						data, err := vfs.ReadFile(n.disk, path.Join(dir, "state"))
						require.NoError(t, err, "seed %d: %s", seed, n.id)
						states[string(data)] = true
					}
					require.Len(t, states, 1, "seed %d", seed)
				})
			}
		})
	}
}

// With one node too many, nodes that see different ones mean different lists.
// They may all stop, but not bootstrap two.
func TestNeverTwoClustersWithOneTooMany(t *testing.T) {
	seeds := seedCount()
	var one, none int
	for _, n := range []int{4, 5} {
		for seed := range seeds {
			synctest.Test(t, func(t *testing.T) {
				w := simulate(t, seed, n, 3)
				require.Empty(t, w.broken, "seed %d", seed)
				require.LessOrEqual(t, len(w.began), 1, "seed %d: %v", seed, w.began)
				one += len(w.began)
				none += 1 - len(w.began)
			})
		}
	}
	require.Positive(t, one)
	t.Logf("one cluster %d times, none %d times", one, none)
}

func withLosses(w *world) { w.losses = true }

// Nodes lose all they had, and operators have promises forgotten, at the worst of
// times, and without looking. There may be a cluster that nobody has any more, and
// another one, but never two that count on one server.
func TestNoServerIsInTwoClusters(t *testing.T) {
	var clusters [3]int
	for _, n := range []int{3, 4, 5} {
		for seed := range seedCount() {
			synctest.Test(t, func(t *testing.T) {
				w := simulate(t, seed, n, 3, withLosses)
				require.Empty(t, w.broken, "seed %d, %d nodes", seed, n)
				clusters[min(len(w.began), 2)]++
			})
		}
	}
	require.Positive(t, clusters[1])
	t.Logf("no cluster %d times, one %d times, more %d times", clusters[0], clusters[1], clusters[2])
}

// What would make two clusters of one server is seen to.
func TestPlantedBugsAreFound(t *testing.T) {
	const most = 400
	for name, b := range map[string]bug{
		"a crash takes the promise along":   losesPromise,
		"no answer is taken for a promise":  believes,
		"who forgot a promise keeps its id": forgetKeepsID,
		"who lost all it had keeps its id":  wipeKeepsID,
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(most) {
				found := false
				synctest.Test(t, func(t *testing.T) {
					w := simulate(t, seed, 4, 3, withLosses, func(w *world) { w.bug = b })
					if found = len(w.broken) > 0; found {
						t.Logf("seed %d: %s", seed, w.broken[0])
					}
				})
				if found {
					return
				}
			}
			t.Fatalf("not found in %d histories", most)
		})
	}
}
