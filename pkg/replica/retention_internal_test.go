package replica

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/logd-io/logd/pkg/commitlog"
)

// stamped is a log of one record a second, and one a segment of 100 bytes.
type stamped struct {
	lowest uint64
	stamps []time.Time
	asked  int
	err    error
}

func (s *stamped) Lowest() uint64 { return s.lowest }

func (s *stamped) OffsetWithin(bytes int64) uint64 {
	keep := max(uint64(bytes)/100, 1)
	return max(s.lowest, uint64(len(s.stamps))-min(keep, uint64(len(s.stamps))))
}

func (s *stamped) Expired(cutoff, future int64, was commitlog.Expiry) (commitlog.Expiry, error) {
	s.asked++
	now := was
	for i := now.Scanned; i < uint64(len(s.stamps)); i++ {
		switch ts := s.stamps[i].UnixNano(); {
		case ts > future:
		case ts >= cutoff:
			return now, s.err
		default:
			now.Below = i + 1
		}
		now.Scanned = i + 1
	}
	return now, s.err
}

func seconds(from time.Time, n int) *stamped {
	s := &stamped{}
	for i := range n {
		s.stamps = append(s.stamps, from.Add(time.Duration(i)*time.Second))
	}
	return s
}

func TestPolicy(t *testing.T) {
	t0 := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, tc := range map[string]struct {
		retain Retain
		now    time.Duration // since t0
		clock  bool
		lowest uint64 // before
		want   uint64
		asked  int
	}{
		"nothing is said":            {Retain{}, time.Hour, true, 3, 3, 0},
		"by size":                    {Retain{Bytes: 1000}, 0, false, 3, 90, 0},
		"by size, all of it fits":    {Retain{Bytes: 1 << 40}, 0, false, 3, 3, 0},
		"by size, never the newest":  {Retain{Bytes: 1}, 0, false, 3, 99, 0},
		"by age":                     {Retain{Age: 30 * time.Second}, 100 * time.Second, true, 0, 70, 1},
		"by age, all old":            {Retain{Age: 30 * time.Second}, time.Hour, true, 0, 100, 1},
		"by age, none old":           {Retain{Age: time.Hour}, 100 * time.Second, true, 0, 0, 1},
		"by age, the clock is wrong": {Retain{Age: 30 * time.Second}, time.Hour, false, 0, 0, 0},
		"both, size is stricter":     {Retain{Age: 50 * time.Second, Bytes: 1000}, 100 * time.Second, true, 0, 90, 1},
		"both, age is stricter":      {Retain{Age: 5 * time.Second, Bytes: 1000}, 100 * time.Second, true, 0, 95, 1},
		"both, the clock is wrong":   {Retain{Age: 5 * time.Second, Bytes: 1000}, 100 * time.Second, false, 0, 90, 0},
		"lower than what is gone":    {Retain{Age: 50 * time.Second}, 100 * time.Second, true, 80, 80, 1},
	} {
		t.Run(name, func(t *testing.T) {
			log := seconds(t0, 100)
			log.lowest = tc.lowest
			p := policy{Retain: tc.retain}
			got, err := p.decide(log, t0.Add(tc.now), tc.clock)
			require.NoError(t, err)
			require.Equal(t, tc.want, got)
			require.Equal(t, tc.asked, log.asked)
		})
	}
}

// Age moves the lowest offset in steps, not with every record, and a clock that
// goes back does not end that.
func TestAgeMovesInSteps(t *testing.T) {
	t0 := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	log := seconds(t0, 10_000)
	p := policy{Retain: Retain{Age: 1000 * time.Second}}
	moves := 0
	for at := 1000 * time.Second; at < 2000*time.Second; at += time.Second {
		lowest, err := p.decide(log, t0.Add(at), true)
		require.NoError(t, err)
		if lowest > log.lowest {
			log.lowest = lowest
			moves++
		}
	}
	require.InDelta(t, 100, moves, 2)
	require.InDelta(t, 1000, log.lowest, 12)
	p.aged = p.aged.Add(time.Hour)
	lowest, err := p.decide(log, t0.Add(2020*time.Second), true)
	require.NoError(t, err)
	require.Greater(t, lowest, log.lowest)
}

// Damage in the index costs retention by age, not by size.
func TestPolicyWithADamagedIndex(t *testing.T) {
	t0 := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	log := seconds(t0, 100)
	log.err = errors.New("damaged")
	p := policy{Retain: Retain{Age: 24 * time.Hour, Bytes: 1000}}
	lowest, err := p.decide(log, t0.Add(100*time.Second), true)
	require.ErrorIs(t, err, log.err)
	require.Equal(t, uint64(90), lowest)
}

// A jump of the leader's clock, forward and back, neither takes nor pins more
// than it has to.
func TestPolicyWhenTheClockJumps(t *testing.T) {
	t0 := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	log := seconds(t0, 100)
	for i := 40; i < 60; i++ { // a year ahead for a while
		log.stamps[i] = log.stamps[i].Add(365 * 24 * time.Hour)
	}
	p := policy{Retain: Retain{Age: 30 * time.Second}}
	decide := func(after time.Duration, clock bool) uint64 {
		lowest, err := p.decide(log, t0.Add(after), clock)
		require.NoError(t, err)
		return lowest
	}
	require.Equal(t, uint64(0), decide(365*24*time.Hour, false), "while it is ahead, the others do not agree")
	require.Equal(t, uint64(40), decide(80*time.Second, true), "what it stamped then is kept as long as what came after")
	require.Equal(t, uint64(70), decide(100*time.Second, true), "and no longer")
	require.Zero(t, decide(365*24*time.Hour, false), "ahead again")
}

func TestClocksAgree(t *testing.T) {
	const self, b, c, d = "a.00000001", "b.00000002", "c.00000003", "d.00000004"
	three := []Peer{{self, true}, {b, true}, {c, true}}
	type said struct {
		ahead, took, ago time.Duration
	}
	for name, tc := range map[string]struct {
		peers []Peer
		said  map[string]said
		want  bool
	}{
		"alone":                            {[]Peer{{self, true}}, nil, true},
		"not a voter, and no voters":       {[]Peer{{self, false}}, nil, false},
		"nobody has said anything":         {three, nil, false},
		"one of two agrees":                {three, map[string]said{b: {ahead: 2 * time.Second}}, true},
		"a second behind":                  {three, map[string]said{b: {ahead: -time.Second}}, true},
		"both are off":                     {three, map[string]said{b: {ahead: 2 * time.Minute}, c: {ahead: -2 * time.Minute}}, false},
		"one is off":                       {three, map[string]said{b: {ahead: 24 * time.Hour}, c: {}}, true},
		"a non-voter does not count":       {append([]Peer{{d, false}}, three...), map[string]said{d: {}}, false},
		"nor does a stranger":              {three, map[string]said{d: {}}, false},
		"within a minute":                  {three, map[string]said{b: {ahead: 59 * time.Second}}, true},
		"perhaps not within a minute":      {three, map[string]said{b: {ahead: 61 * time.Second, took: 3 * time.Second}}, false},
		"an answer took long":              {three, map[string]said{b: {took: 30 * time.Second}}, true},
		"an answer took longer than that":  {three, map[string]said{b: {took: 61 * time.Second}}, false},
		"said long ago":                    {three, map[string]said{b: {ago: 11 * time.Second}}, false},
		"said a while ago":                 {three, map[string]said{b: {ago: 9 * time.Second}}, true},
		"one of four voters is not enough": {append([]Peer{{d, true}}, three...), map[string]said{b: {}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &Replica{}
				for id, s := range tc.said {
					sent := time.Now()
					clock := sent.Add(s.ahead) // it is read as the question comes
					time.Sleep(s.took)
					r.NoteClock(id, clock, sent, time.Now())
					time.Sleep(s.ago)
				}
				require.Equal(t, tc.want, r.clocks.agree(self, tc.peers, time.Now()))
			})
		})
	}
	// Our own clock jumps after the others were asked.
	synctest.Test(t, func(t *testing.T) {
		r := &Replica{}
		r.NoteClock(b, time.Now(), time.Now(), time.Now())
		time.Sleep(5 * time.Second)
		require.True(t, r.clocks.agree(self, three, time.Now()))
		require.False(t, r.clocks.agree(self, three, time.Now().Add(time.Hour)))
		require.False(t, r.clocks.agree(self, three, time.Now().Add(-time.Hour)))
		require.Equal(t, []string{b + ": -1h0m0s", c + ": unknown"}, r.clocks.differences(self, three, time.Now().Add(time.Hour)))
	})
}

func TestPaceOfSweeping(t *testing.T) {
	var s sweeping
	now := time.Unix(100, 0)
	require.Equal(t, 1, s.due(now, 0), "offset files alone")
	now = now.Add(time.Minute)
	require.Equal(t, 1, s.due(now, 1))
	require.Zero(t, s.due(now.Add(sweepPeriod), 5))
	require.Zero(t, s.due(now.Add(sweepPace-1), 5))
	require.Equal(t, 1, s.due(now.Add(sweepPace), 5))
	now = now.Add(sweepPace + sweepPeriod)
	require.Equal(t, 1, s.due(now, sweepBacklog+1))
	require.Equal(t, 10, s.due(now, 10*sweepBacklog+1))
	// However fast the log grows, what waits is bounded by its growth.
	for _, each := range []int{1, 10, 100} { // segments a period
		waiting := 0
		for range 1000 {
			waiting += each
			now = now.Add(sweepPeriod)
			waiting -= min(waiting, s.due(now, waiting))
		}
		require.LessOrEqual(t, waiting, sweepBacklog*(each+1))
	}
}
