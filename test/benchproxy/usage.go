package main

import (
	"os"
	"time"

	"github.com/logd-io/logd/test/harness"
)

// The columns of CPU time: who takes part in a measurement.
const (
	leaderCPU = iota
	followersCPU
	proxyCPU
	clientsCPU
)

var columns = []string{"leader", "followers", "proxy", "clients"}

// usage reads the CPU clocks of all who take part, with proxy if it is not nil.
func (w *world) usage(proxy *harness.Process) ([]time.Duration, error) {
	used := make([]time.Duration, len(columns))
	add := func(column, pid int) error {
		cpu, err := harness.CPU(pid)
		used[column] += cpu
		return err
	}
	if err := add(leaderCPU, w.leader.PID()); err != nil {
		return nil, err
	}
	for _, f := range w.followers {
		if !f.Running() {
			continue
		}
		if err := add(followersCPU, f.PID()); err != nil {
			return nil, err
		}
	}
	if proxy != nil {
		if err := add(proxyCPU, proxy.PID()); err != nil {
			return nil, err
		}
	}
	return used, add(clientsCPU, os.Getpid())
}
