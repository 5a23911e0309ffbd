package netlimit

import "syscall"

// Budget is how many connections of each kind a listener may hold.
type Budget struct {
	New  int // that have not shown who they are
	Kept int // that have, nodes not counted
}

// unknownFiles is assumed where the system does not tell its limit.
const unknownFiles = 1024

// Files is how many file descriptors this process may have open.
func Files() int {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return unknownFiles
	}
	return int(min(uint64(r.Cur), 1<<20)) //nolint:unconvert // its type differs between systems
}

// Clients is the budget of the port that clients use: half of files for those
// that are known, an eighth for those that are not. The rest is for gossip, the
// admin server, files, and what the process itself dials.
func Clients(files int) Budget {
	return Budget{New: within(files / 8), Kept: max(files/2, 1)}
}

// Aside is how many connections a port may hold that is not for clients, such as
// gossip: each is short.
func Aside(files int) int { return within(files / 16) }

func within(n int) int { return min(max(n, 8), 1024) }
