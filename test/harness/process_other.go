//go:build !linux

package harness

import (
	"errors"
	"syscall"
	"time"
)

func childAttr() *syscall.SysProcAttr { return nil }

func cpuTime(int) (time.Duration, error) {
	return 0, errors.New("the CPU time of a process is read on Linux only")
}

func residentMemory(int) (int64, error) {
	return 0, errors.New("resident memory is only known on Linux")
}

func peakMemory(int) (int64, error) {
	return 0, errors.New("resident memory is only known on Linux")
}
