package zk

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

const (
	answerMost  = 1 << 20  // bytes of an answer that are kept; a server's own default
	skippedMost = 64 << 20 // bytes of an answer that are read over
	greetMost   = 1 << 10  // bytes of the answer to connect; 41 are usual
	closeIn     = time.Second

	timeoutLeast, timeoutMost = 500 * time.Millisecond, 2 * time.Minute
)

// ErrLost is why a call of a Conn fails whose connection has ended.
var ErrLost = errors.New("the connection to ZooKeeper is lost")

// Conn is a session. It is safe for concurrent use.
type Conn struct {
	raw     net.Conn
	server  string
	timeout time.Duration // of the session, as the server has it
	acl     []acl         // of what is made

	writing sync.Mutex // held while a request is written

	mu      sync.Mutex
	xid     int32                    // of the newest request; guarded by mu
	calls   map[int32]chan reply     // who waits for an answer, each for one; guarded by mu
	watches map[string]chan struct{} // closed when something about that path may have changed; guarded by mu
	err     error                    // why it is over; guarded by mu

	lost    chan struct{} // closed when it is over
	workers sync.WaitGroup
}

type reply struct {
	body []byte
	err  error
}

// Dial connects to one of the servers, tried once each in random order, until ctx
// ends. The Conn lives until Close, whatever becomes of ctx.
func Dial(ctx context.Context, cfg Config) (*Conn, error) {
	var errs []error
	for _, server := range cfg.shuffled() {
		c, err := dial(ctx, cfg, server)
		if err == nil {
			return c, nil
		}
		errs = append(errs, fmt.Errorf("ZooKeeper at %s: %w", server, err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, dialErrors(errs)
}

// dialErrors are those of all servers, in one line.
type dialErrors []error

func (e dialErrors) Error() string {
	text := make([]string, len(e))
	for i, err := range e {
		text[i] = err.Error()
	}
	return strings.Join(text, "; ")
}

func (e dialErrors) Unwrap() []error { return e }

func dial(ctx context.Context, cfg Config, server string) (c *Conn, err error) {
	ctx, cancel := context.WithTimeout(ctx, dialIn)
	defer cancel()
	user, err := cfg.credentials()
	if err != nil {
		return nil, err
	}
	raw, err := cfg.connect(ctx, server)
	if err != nil {
		return nil, err
	}
	// From here on whatever hangs is cut off when ctx ends.
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer func() {
		if !stop() {
			why := fmt.Errorf("it does not answer: %w", context.Cause(ctx))
			if err != nil {
				why = fmt.Errorf("%w (%w)", why, err)
			}
			err = why
		}
		switch {
		case err == nil:
		case c != nil:
			c.cut()
			c = nil
		default:
			_ = raw.Close()
		}
	}()
	timeout, err := greet(raw, cfg.sessionTimeout())
	if err != nil {
		return nil, err
	}
	c = &Conn{
		raw: raw, server: server, timeout: timeout,
		acl:     []acl{{permAll, "world", "anyone"}},
		calls:   map[int32]chan reply{},
		watches: map[string]chan struct{}{},
		lost:    make(chan struct{}),
	}
	c.workers.Go(c.read) // hands answers out until the connection ends
	c.workers.Go(c.ping) // keeps the session alive
	if user != "" {
		c.acl = []acl{{permAll, "auth", ""}, {permRead, "world", "anyone"}}
		var body encoder
		body.int32(0)
		body.string("digest")
		body.string(user)
		if _, err := c.do(ctx, xidAuth, opAuth, body); err != nil {
			return c, fmt.Errorf("authenticate: %w", err)
		}
	}
	return c, nil
}

// greet begins a session and answers how long it lives without a word.
func greet(raw net.Conn, timeout time.Duration) (time.Duration, error) {
	var e encoder
	e.int32(0)
	e.int64(0)
	e.int32(int32(timeout.Milliseconds()))
	e.int64(0)
	e.string(string(make([]byte, 16))) // the password of no session
	e.bool(false)
	if err := writeFrame(raw, e); err != nil {
		return 0, err
	}
	n, err := frameLen(raw, 0, greetMost)
	if err != nil {
		return 0, err
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(raw, body); err != nil {
		return 0, err
	}
	d := decoder{rest: body}
	d.int32()
	granted, session := d.int32(), d.int64()
	switch {
	case d.err != nil:
		return 0, d.err
	case session == 0 || granted <= 0:
		return 0, errors.New("it gave no session")
	}
	// Where a server grants what is not reasonable, only the pace of pings is ours.
	return min(max(time.Duration(granted)*time.Millisecond, timeoutLeast), timeoutMost), nil
}

func writeFrame(w io.Writer, body []byte) error {
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body)))
	_, err := w.Write(append(frame, body...))
	return err
}

func frameLen(r io.Reader, least, most uint32) (int, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n < least || n > most {
		return 0, fmt.Errorf("an answer of %d bytes; is this a ZooKeeper client port?", n)
	}
	return int(n), nil
}

// Server is the address of the server.
func (c *Conn) Server() string { return c.server }

// Lost is closed when the connection has ended, and with it the session as far as
// this side knows it.
func (c *Conn) Lost() <-chan struct{} { return c.lost }

// Err is why the Conn is over; nil while it is not.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the session, so that the server removes what is ephemeral in it, and
// waits for that a second at most. Calling it again is harmless.
func (c *Conn) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeIn)
	defer cancel()
	_, _ = c.call(ctx, opClose, nil) // without an answer the session ends by its timeout
	c.cut()
	return nil
}

// cut ends the connection and waits for what serves it. The session is left to its
// timeout.
func (c *Conn) cut() {
	c.over(net.ErrClosed)
	c.workers.Wait()
}

// over ends everything, for the first reason that is given.
func (c *Conn) over(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = fmt.Errorf("%w (%s): %w", ErrLost, c.server, err)
	_ = c.raw.Close()
	close(c.lost)
	for path, changed := range c.watches {
		close(changed)
		delete(c.watches, path)
	}
}

// read hands out answers.
func (c *Conn) read() {
	for {
		// Two pings should have been answered by then, and there is time for another
		// server while this one still has the session.
		err := c.raw.SetReadDeadline(time.Now().Add(c.timeout * 2 / 3))
		if err == nil {
			err = c.readOne()
		}
		if err != nil {
			c.over(err)
			return
		}
	}
}

func (c *Conn) readOne() error {
	n, err := frameLen(c.raw, replyHead, skippedMost)
	if err != nil {
		return err
	}
	frame := make([]byte, min(n, replyHead+answerMost))
	if n > len(frame) {
		frame = frame[:replyHead]
	}
	if _, err := io.ReadFull(c.raw, frame); err != nil {
		return err
	}
	d := decoder{rest: frame}
	xid := d.int32()
	d.int64() // zxid
	r := reply{err: codeError(d.int32())}
	r.body = d.rest
	if n > len(frame) {
		if _, err := io.CopyN(io.Discard, c.raw, int64(n-len(frame))); err != nil {
			return err
		}
		r = reply{err: ErrTooLarge}
	}
	if xid == xidEvent {
		c.fire(d)
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if waiting := c.calls[xid]; waiting != nil {
		waiting <- r // it has room for the one answer
		delete(c.calls, xid)
	}
	return nil
}

// fire tells who watches a path. Events of the session itself have none.
func (c *Conn) fire(d decoder) {
	d.int32() // type
	d.int32() // state
	path := string(d.bytes())
	c.mu.Lock()
	defer c.mu.Unlock()
	if changed := c.watches[path]; changed != nil {
		close(changed)
		delete(c.watches, path)
	}
}

// watch is closed when something about path may have changed, if a request that asks
// the server to say so follows.
func (c *Conn) watch(path string) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	changed := c.watches[path]
	if changed == nil {
		changed = make(chan struct{})
		if c.err != nil {
			close(changed)
		} else {
			c.watches[path] = changed
		}
	}
	return changed
}

func (c *Conn) ping() {
	tick := time.NewTicker(c.timeout / 4)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := c.write(xidPing, opPing, nil); err != nil {
				c.over(err)
				return
			}
		case <-c.lost:
			return
		}
	}
}

func (c *Conn) write(xid, op int32, body []byte) error {
	var e encoder
	e.int32(xid)
	e.int32(op)
	c.writing.Lock()
	defer c.writing.Unlock()
	if err := c.raw.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
		return err
	}
	return writeFrame(c.raw, append(e, body...))
}

func (c *Conn) call(ctx context.Context, op int32, body []byte) ([]byte, error) {
	c.mu.Lock()
	c.xid = max(c.xid+1, 1) // after two thousand million it begins again
	xid := c.xid
	c.mu.Unlock()
	return c.do(ctx, xid, op, body)
}

// do makes a request and waits for its answer.
func (c *Conn) do(ctx context.Context, xid, op int32, body []byte) ([]byte, error) {
	answer := make(chan reply, 1) // capacity 1: the answer, also when nobody waits any more
	c.mu.Lock()
	if c.err != nil {
		defer c.mu.Unlock()
		return nil, c.err
	}
	c.calls[xid] = answer
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.calls, xid)
	}()
	if err := c.write(xid, op, body); err != nil {
		c.over(err)
		return nil, c.Err()
	}
	select {
	case r := <-answer:
		return r.body, r.err
	case <-c.lost:
		return nil, c.Err()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
