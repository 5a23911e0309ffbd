package cli

import (
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
)

// notifier tells the service manager that started this process how it stands, as
// sd_notify(3) of systemd does: datagrams of VARIABLE=value lines to the socket that
// NOTIFY_SOCKET names. Where none is named it says nothing.
type notifier struct {
	write  func(message string) error // nil: nobody listens
	stderr io.Writer

	mu       sync.Mutex
	ready    bool   // READY=1 was sent; guarded by mu
	stopping bool   // STOPPING=1 was sent, and nothing comes after it; guarded by mu
	status   string // the last STATUS; guarded by mu
	failed   bool   // a message was not taken, which is said once; guarded by mu
}

func newNotifier(env Env) *notifier {
	n := &notifier{stderr: env.Stderr}
	// "@" stands for an abstract socket, as net has it too. There are others, of
	// virtual machines, and they are not for what runs in one.
	if socket := env.Getenv("NOTIFY_SOCKET"); strings.HasPrefix(socket, "/") || strings.HasPrefix(socket, "@") {
		n.write = func(message string) error { return datagram(socket, message) }
	}
	return n
}

// datagramTimeout is how long a manager that does not read may hold us up.
const datagramTimeout = time.Second

func datagram(socket, message string) error {
	conn, err := net.Dial("unixgram", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetWriteDeadline(time.Now().Add(datagramTimeout)); err != nil {
		return err
	}
	_, err = io.WriteString(conn, message)
	return err
}

// send needs n.mu.
func (n *notifier) send(lines ...string) {
	if n.write == nil || n.stopping {
		return
	}
	if err := n.write(strings.Join(lines, "\n")); err != nil && !n.failed {
		n.failed = true
		fmt.Fprintf(n.stderr, "==> The service manager does not listen: %v\n", err)
	}
}

// statusLine is one line, whatever others have put into the text.
func statusLine(text string) string {
	return "STATUS=" + strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
}

const (
	extendEvery = 10 * time.Second
	extendBy    = 30 * time.Second
)

func extend(by time.Duration) string {
	return "EXTEND_TIMEOUT_USEC=" + strconv.FormatInt(by.Microseconds(), 10)
}

// Opening tells the service manager that a start goes on, until the function that
// it returns is called: how long a log takes to be read is not for the manager to
// limit. A process that is stopped says nothing, and the limit holds.
func Opening(env Env, what string) (opened func()) { return newNotifier(env).opening(what) }

func (n *notifier) opening(what string) (opened func()) {
	if n.write == nil {
		return func() {}
	}
	say := func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.send(statusLine(what), extend(extendBy))
	}
	say()
	return every(extendEvery, say)
}

// every calls f again and again until the function that it returns is called.
func every(d time.Duration, f func()) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() { // ended and waited for by stop
		defer close(done)
		tick := time.NewTicker(d)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				f()
			case <-quit:
				return
			}
		}
	}()
	return func() {
		close(quit)
		<-done
	}
}

// stands tells whether the process serves, and if not, why; serving is whether it
// counts as started.
func (n *notifier) stands(serving bool, reasons []string) {
	status := "ready"
	if len(reasons) > 0 {
		status = strings.Join(reasons, "; ")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	var lines []string
	if serving && !n.ready {
		n.ready = true
		lines = append(lines, "READY=1")
	}
	if status != n.status {
		n.status = status
		lines = append(lines, statusLine(status))
	}
	if len(lines) > 0 {
		n.send(lines...)
	}
}

// reload tells of one, which f is. Before the process counts as started it is of no
// interest, and its end would be taken for the start's.
func (n *notifier) reload(f func()) {
	n.mu.Lock()
	tell := n.ready
	if tell {
		n.send("RELOADING=1", "MONOTONIC_USEC="+strconv.FormatInt(monotonic().Microseconds(), 10))
	}
	n.mu.Unlock()
	f()
	n.mu.Lock()
	defer n.mu.Unlock()
	if tell {
		n.send("READY=1", statusLine(n.status))
	}
}

// afterDrain is what the end may take when the drain is over.
const afterDrain = 15 * time.Second

// stops tells that the process ends, for err or, without one, because it was told
// to, and that it takes as long as a drain may.
func (n *notifier) stops(drain time.Duration, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	status := "draining"
	if err != nil {
		status = err.Error()
	}
	n.send("STOPPING=1", statusLine(status), extend(drain+afterDrain))
	n.stopping = true
}

// watchdogEvery is how often the service manager wants to hear of this process; 0:
// it does not.
func watchdogEvery(env Env) time.Duration {
	usec, err := strconv.ParseInt(env.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || usec <= 0 {
		return 0
	}
	if pid := env.Getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	return max(time.Duration(usec)*time.Microsecond/2, time.Millisecond)
}

// watchdog says again and again that the process is alive, if the service manager
// wants to know: look must return for it.
func (n *notifier) watchdog(period time.Duration, look func()) (stop func()) {
	if n.write == nil || period == 0 {
		return func() {}
	}
	return every(period, func() {
		look()
		n.mu.Lock()
		defer n.mu.Unlock()
		n.send("WATCHDOG=1")
	})
}
