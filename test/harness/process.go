package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Process is one program that can be killed and started again with the same
// arguments. Its output goes to a log file that grows over all its lives.
type Process struct {
	Name string
	Path string
	Args []string
	Log  string // file of its output

	mu   sync.Mutex
	cmd  *exec.Cmd     // guarded by mu; nil before the first Start
	done chan struct{} // guarded by mu; closed when cmd has been waited for
}

// Start runs the program. It fails when it is running already.
func (p *Process) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil && p.running() {
		return fmt.Errorf("start %s: it is running already", p.Name)
	}
	if err := os.MkdirAll(filepath.Dir(p.Log), 0o700); err != nil {
		return err
	}
	out, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	defer out.Close()
	cmd := exec.Command(p.Path, p.Args...)
	cmd.Stdout, cmd.Stderr = out, out
	// The children end with whoever runs them, however that ends.
	cmd.SysProcAttr = childAttr()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	done := make(chan struct{})
	p.cmd, p.done = cmd, done
	go func() { // joined by Wait through done
		_ = cmd.Wait()
		close(done)
	}()
	return nil
}

func (p *Process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Running tells whether the process was started and has not ended.
func (p *Process) Running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd != nil && p.running()
}

// Signal sends sig to the running process.
func (p *Process) Signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil || !p.running() {
		return fmt.Errorf("signal %s: it is not running", p.Name)
	}
	return p.cmd.Process.Signal(sig)
}

// Kill ends the process with SIGKILL and waits for its end.
func (p *Process) Kill() error {
	if err := p.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	_, err := p.Wait(context.Background())
	return err
}

// Stop asks the process to end with SIGTERM and waits for it; when ctx ends
// first it is killed, and that is an error.
func (p *Process) Stop(ctx context.Context) error {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	code, err := p.Wait(ctx)
	if err != nil {
		return errors.Join(fmt.Errorf("stop %s: %w", p.Name, err), p.Kill())
	}
	if code != 0 {
		return fmt.Errorf("stop %s: exit code %d:\n%s", p.Name, code, p.Tail(20))
	}
	return nil
}

// Wait blocks until the process has ended and tells its exit code, -1 when a
// signal ended it.
func (p *Process) Wait(ctx context.Context) (code int, err error) {
	p.mu.Lock()
	cmd, done := p.cmd, p.done
	p.mu.Unlock()
	if cmd == nil {
		return 0, fmt.Errorf("wait for %s: it was never started", p.Name)
	}
	select {
	case <-done:
		return cmd.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// PID is the process id of the newest life, 0 when there was none.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// Memory is what the process has resident, in bytes.
func (p *Process) Memory() (int64, error) {
	return residentMemory(p.PID())
}

// PeakMemory is the most memory the process has had resident, in bytes.
func (p *Process) PeakMemory() (int64, error) {
	return peakMemory(p.PID())
}

// CPU is the user and system time the running process has used.
func (p *Process) CPU() (time.Duration, error) {
	return CPU(p.PID())
}

// CPU is the user and system time that any process has used.
func CPU(pid int) (time.Duration, error) { return cpuTime(pid) }

// Tail is the end of the process's output, at most n lines.
func (p *Process) Tail(n int) string {
	f, err := os.Open(p.Log)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	const most = 64 << 10
	if st, err := f.Stat(); err == nil && st.Size() > most {
		_, _ = f.Seek(-most, io.SeekEnd)
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimRight(b, "\n"), []byte("\n"))
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return string(bytes.Join(lines, []byte("\n")))
}
