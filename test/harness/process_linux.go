package harness

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// cpuTime reads the CPU clock of a process, of all its threads together and to
// the nanosecond, where /proc counts in ticks of 10 ms. The clock's number is
// what clock_getcpuclockid(3) makes of a process id.
func cpuTime(pid int) (time.Duration, error) {
	const cpuClockSched = 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|cpuClockSched), &ts); err != nil {
		return 0, fmt.Errorf("CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// memory reads a line of a process's status, which is in KiB.
func memory(pid int, what string) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		var kib int64
		if _, err := fmt.Sscanf(line, what+": %d kB", &kib); err == nil {
			return kib << 10, nil
		}
	}
	return 0, fmt.Errorf("process %d tells no %s", pid, what)
}

// residentMemory is a process's resident set, peakMemory the most it ever was.
func residentMemory(pid int) (int64, error) { return memory(pid, "VmRSS") }
func peakMemory(pid int) (int64, error)     { return memory(pid, "VmHWM") }
