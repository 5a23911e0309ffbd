package cli

import (
	"fmt"
	"io"
	"time"
)

// progressPace is how often the line is written anew.
const progressPace = 200 * time.Millisecond

// Progress keeps one line on a terminal up to date while something long runs.
// Where there is no terminal it writes nothing.
type Progress struct {
	w    io.Writer
	stop chan struct{} // closed by Stop
	done chan struct{} // closed when nothing more is written
}

// ShowProgress writes what line returns, a few times a second, until Stop.
func ShowProgress(env Env, line func() string) *Progress {
	p := &Progress{w: env.Stderr, stop: make(chan struct{}), done: make(chan struct{})}
	if !env.Terminal {
		close(p.done)
		return p
	}
	go p.run(line) // Stop waits for it
	return p
}

func (p *Progress) run(line func() string) {
	defer close(p.done)
	tick := time.NewTicker(progressPace)
	defer tick.Stop()
	for {
		select {
		case <-p.stop:
			fmt.Fprint(p.w, "\r\x1b[K") // the result follows; the line has served its purpose
			return
		case <-tick.C:
			fmt.Fprintf(p.w, "\r\x1b[K%s", line())
		}
	}
}

// Stop takes the line away. It is called once.
func (p *Progress) Stop() {
	close(p.stop)
	<-p.done
}
