package commitlog

import "math/rand/v2"

// nextID returns an id above every one this log has used.
func (l *Log) nextID() uint64 {
	l.lastCounter++
	if l.options.Planted.UnseededHeaders {
		return floorOf(l.lastCounter) | uint64(l.lastCounter*headerSeed) // headerCRC's seed becomes 0
	}
	return floorOf(l.lastCounter) | uint64(rand.Uint32())
}

// floorOf is the lowest id with the counter c.
func floorOf(c uint32) uint64 { return uint64(c) << 32 }

// used notes an id that is, or was, a file's.
func (l *Log) used(id uint64) {
	if c := uint32(id >> 32); id != 0 {
		l.lastCounter = max(l.lastCounter, c)
	}
}
