package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// A proxy holds little and allocates much: with Go's default it collects a few MiB of
// garbage dozens of times a second, for an eighth of its CPU. While much is allocated,
// gcSlack of garbage may wait, or as much as is live where that is more, as ever.
const (
	gcSlack  = 16 << 20
	gcMost   = 400      // percent
	gcBusy   = 16 << 20 // bytes allocated in gcEvery from which on it matters
	gcEvery  = time.Second
	gcAsEver = 100
)

// paceGC sets how much garbage may wait, until the function that it returns is called.
// Where GOGC is set it is the operator's matter.
func paceGC() (stop func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { // ends with ctx; stop waits for it
		defer close(done)
		tick := time.NewTicker(gcEvery)
		defer tick.Stop()
		before, _ := heap()
		for set := gcAsEver; ; {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			allocated, live := heap()
			if percent := gcPercent(allocated-before, live); percent != set {
				set = percent
				debug.SetGCPercent(percent)
			}
			before = allocated
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// heap is how many bytes were ever allocated, and how many were live when garbage was
// last collected.
func heap() (allocated, live uint64) {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64(), sample[1].Value.Uint64()
}

// gcPercent is GOGC for a process that allocated so many bytes in gcEvery and had so
// many live at the last collection, in steps, since setting it stops the world.
func gcPercent(allocated, live uint64) int {
	if allocated < gcBusy {
		return gcAsEver
	}
	percent := min(gcSlack*100/max(live, 1), gcMost)
	return max(int(percent)/50*50, gcAsEver)
}
