package commitlog_test

import (
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/commitlog"
	"github.com/logd-io/logd/pkg/vfs/faultfs"
	"github.com/logd-io/logd/pkg/vfs/memfs"
)

// While a log is written, read and scrubbed its sealed segments are damaged and
// repaired all the time: nothing wrong is read, no append waits for a repair,
// and in the end all is there.
func TestRepairBesideEverything(t *testing.T) {
	const rounds = 300
	mem := memfs.New()
	o := small(mem)
	damage := make(chan struct{}, 1) // capacity 1: "look again"
	o.OnDamage = func(commitlog.Damage) {
		select {
		case damage <- struct{}{}:
		default:
		}
	}
	l, err := commitlog.Open(o)
	require.NoError(t, err)
	all := &model{entries: entries(1, 60+rounds, 2, 60)}
	require.NoError(t, l.Append(all.entries[:60]))
	require.NoError(t, l.Publish(batches(all.entries[:60], 0, 1)))
	var last atomic.Uint64 // entries there are for sure
	last.Store(60)
	var done atomic.Bool
	var repaired atomic.Uint64
	var wg sync.WaitGroup
	fail := make(chan error, 8) // capacity: one for each goroutine, at most
	run := func(f func(rng *rand.Rand) error) {
		seed := rand.Uint64N(1000)
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, 9))
			for !done.Load() {
				if err := f(rng); err != nil {
					fail <- err
					return
				}
			}
		})
	}
	for range 2 {
		run(func(rng *rand.Rand) error {
			n := last.Load()
			m := &model{entries: all.entries[:n]}
			if _, err := m.reads(l); err != nil {
				return err
			}
			// Seen damaged and listed are two moments: here it is only read.
			for range 20 {
				i := 1 + rng.Uint64N(n)
				e, err := l.Entry(i)
				var c *commitlog.CorruptError
				if err != nil && !errors.As(err, &c) {
					return err
				}
				if err == nil && string(e.Data) != string(all.entries[i-1].Data) {
					return errors.New("an entry is not what it was")
				}
			}
			return nil
		})
	}
	run(func(*rand.Rand) error { return l.Scrub(t.Context(), 0, free) })
	mend := func() error {
		for _, d := range l.Damage() {
			n, err := l.Repair(all.slice(d.First, d.Last+1), d.Last)
			var proof *commitlog.ProofError
			if err != nil && !errors.As(err, &proof) { // what is not there any more proves nothing
				return err
			}
			repaired.Add(n)
		}
		return nil
	}
	run(func(*rand.Rand) error {
		<-damage
		return mend()
	})
	rng := rand.New(rand.NewPCG(4, 4))
	spoil := func() {
		names := segments(t, mem)
		name := dir + "/" + names[rng.IntN(len(names)-1)]
		b := get(t, mem, name)
		require.NoError(t, mem.Corrupt(name, 64+rng.Int64N(int64(len(strings.TrimRight(string(b), "\x00"))-64)), 1<<rng.IntN(8)))
	}
	for i := uint64(61); i <= 60+rounds; i++ {
		require.NoError(t, l.Append(all.entries[i-1:i]))
		require.NoError(t, l.Publish(batches(all.entries[i-1:i], i-1, 1)))
		last.Store(i)
		if i%3 == 0 && len(l.Damage()) < 3 {
			spoil()
		}
		select {
		case err := <-fail:
			require.NoError(t, err)
		default:
		}
	}
	// On a busy machine all is written before much has been damaged, or found.
	for until := time.Now().Add(time.Minute); repaired.Load() <= 20 && len(fail) == 0; time.Sleep(time.Millisecond) {
		require.True(t, time.Now().Before(until), "%d entries repaired, damaged: %v", repaired.Load(), l.Damage())
		if len(l.Damage()) == 0 {
			spoil()
		}
	}
	done.Store(true)
	o.OnDamage(commitlog.Damage{}) // wakes who waits for some
	wg.Wait()
	close(fail)
	require.NoError(t, <-fail)
	for range 5 {
		require.NoError(t, l.Scrub(t.Context(), 0, free))
		require.NoError(t, mend())
	}
	require.Empty(t, l.Damage())
	t.Logf("%d entries repaired", repaired.Load())
	all.is(t, l, mem, "in the end")
}

// A full disk stops a repair, which goes on when there is room; a disk that
// fails is fatal; and what is whole stays whole.
func TestRepairOnATroubledDisk(t *testing.T) {
	mem, m := build(t, 40, 60)
	names := segments(t, mem)
	for what, spoil := range map[string]func(fs *memfs.FS){
		"in place": func(fs *memfs.FS) { n := dir + "/" + names[2]; put(t, fs, n, get(t, fs, n)[:300]) },
		"missing":  func(fs *memfs.FS) { require.NoError(t, fs.Remove(dir+"/"+names[2])) },
	} {
		for _, errno := range []error{syscall.ENOSPC, syscall.EIO} {
			for _, op := range []faultfs.Kind{faultfs.Write, faultfs.Sync} {
				if errors.Is(errno, syscall.ENOSPC) && op == faultfs.Sync {
					continue // no room is told by the write
				}
				fs := mem.Kill()
				spoil(fs)
				var on faultfs.Switch
				o := small(faultfs.Wrap(fs, faultfs.When(faultfs.All(on.On, faultfs.Is(op)), faultfs.Fail(errno))))
				var fatal []error
				o.AllowDamage, o.OnFatal = true, func(err error) { fatal = append(fatal, err) }
				l, err := commitlog.Open(o)
				require.NoError(t, err)
				d := l.Damage()[0]
				on.Set(true)
				_, err = l.Repair(m.slice(d.First, d.Last), m.last())
				require.ErrorIs(t, err, errno, what)
				on.Set(false)
				var full *commitlog.NoSpaceError
				if errors.Is(errno, syscall.ENOSPC) {
					require.ErrorAs(t, err, &full)
					require.Empty(t, fatal)
					require.True(t, l.Quarantined())
					_, err = m.serves(l)
					require.NoError(t, err)
					require.NoError(t, m.mend(l, m.last()), what)
					m.is(t, l, fs, what)
					continue
				}
				require.Len(t, fatal, 1)
				_, err = l.Repair(m.slice(d.First, d.Last), m.last())
				require.Equal(t, fatal[0], err, "for good")
				_ = l.Close() // what a failed log says on close does not matter here
				m.repaired(t, fs, 0, m.last(), what)
			}
		}
	}
}
