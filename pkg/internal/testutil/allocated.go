package testutil

import "runtime"

// Allocated is how many bytes f made the process allocate, with what its other
// goroutines did meanwhile. A fuzz target holds a decoder to a bound with it.
func Allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}
