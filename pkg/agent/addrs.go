package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/logd-io/logd/pkg/membership"
	"github.com/logd-io/logd/pkg/replica"
	"github.com/logd-io/logd/pkg/tlsconf"
	"github.com/logd-io/logd/pkg/vfs"
)

// Addrs are the addresses a node really bound, as host:port. It writes them to
// addrs.json in its data directory, and binds the same ports again after a
// restart where its configuration leaves them to the system.
type Addrs struct {
	RPC    string `json:"rpc"`
	Gossip string `json:"gossip"`
	Admin  string `json:"admin"`
}

const addrsFile = "addrs.json"

func (a *Agent) writeAddrs() error {
	b, err := json.MarshalIndent(a.addrs, "", "  ")
	if err != nil {
		return err
	}
	name := filepath.Join(a.cfg.DataDir, addrsFile)
	var old Addrs
	if readJSON(a.deps.FS, name, &old) == nil && old == a.addrs {
		return nil // a restart on a full disk has nothing to write here
	}
	if err := vfs.WriteFileAtomic(a.deps.FS, name, append(b, '\n')); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// reuse gives addr the port it had before this restart, if its own is 0.
func (a *Agent) reuse(addr string, of func(Addrs) string) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || port != "0" {
		return addr, err
	}
	var old Addrs
	switch err := readJSON(a.deps.FS, filepath.Join(a.cfg.DataDir, addrsFile), &old); {
	case errors.Is(err, fs.ErrNotExist):
		return addr, nil
	case err != nil:
		return "", err
	}
	if _, port, err = net.SplitHostPort(of(old)); err != nil {
		return addr, nil //nolint:nilerr // it was not bound the last time
	}
	return net.JoinHostPort(host, port), nil
}

func (a *Agent) openListener() error {
	addr, err := a.reuse(a.cfg.RPCAddr(), func(old Addrs) string { return old.RPC })
	if err != nil {
		return err
	}
	a.listener, err = a.deps.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("RPC listener: %w", err)
	}
	a.open.push(closeOnce(a.listener))
	a.addrs.RPC = a.listener.Addr().String()
	return nil
}

// closeOnce forgives that the server has closed the listener already.
func closeOnce(l net.Listener) closerFunc {
	return func() error {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	}
}

type closerFunc func() error

func (f closerFunc) Close() error { return f() }

// advertised is host:port under which others reach a listener of ours.
func (a *Agent) advertised(bound string) (string, error) {
	_, port, err := net.SplitHostPort(bound)
	if err != nil {
		return "", err
	}
	host, err := a.cfg.AdvertiseHost()
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(host, port), nil
}

// address is host:port of a node's RPC listener, "" when it was never seen.
func (a *Agent) address(id string) string {
	if id == a.id {
		addr, err := a.advertised(a.addrs.RPC)
		if err != nil {
			return ""
		}
		return addr
	}
	return a.book.address(id)
}

// dialRaft opens Raft's connection to a node, and makes sure that it is that node.
func (a *Agent) dialRaft(ctx context.Context, id string) (net.Conn, error) {
	return a.dial(ctx, id, tlsconf.ALPNRaft)
}

func (a *Agent) dial(ctx context.Context, id, alpn string) (net.Conn, error) {
	addr := a.address(id)
	if addr == "" {
		return nil, errors.New("gossip has never named an address for it")
	}
	raw, err := a.deps.Dial(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return a.handshake(ctx, raw, alpn, replica.NameOf(id))
}

// addressBook remembers where each node answers, over restarts too: after one,
// Raft wants its peers before gossip has found them.
type addressBook struct {
	fs   vfs.FS
	name string

	mu    sync.Mutex
	m     map[string]string // node id → host:port; guarded by mu
	dirty bool              // m has what the file has not; guarded by mu
}

func openAddressBook(files vfs.FS, name string, logger hclog.Logger) (*addressBook, error) {
	b := &addressBook{fs: files, name: name, m: make(map[string]string)}
	var damaged *formatError
	switch err := readJSON(files, name, &b.m); {
	case err == nil, errors.Is(err, fs.ErrNotExist):
	case errors.As(err, &damaged):
		// Nothing is lost but time: gossip names the addresses again.
		logger.Warn("the addresses of the other nodes are forgotten", "err", err)
		b.m = nil
	default:
		return nil, err
	}
	if b.m == nil { // for JSON's null as well
		b.m = make(map[string]string)
	}
	return b, nil
}

func (b *addressBook) address(id string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.m[id]
}

// learn takes the addresses of storage nodes from gossip and keeps them. When it
// fails, they are known all the same, and written with the next call.
func (b *addressBook) learn(members []membership.Member) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range members {
		if m.Role == membership.RoleStorage && m.RPCAddr != "" && b.m[m.ID] != m.RPCAddr {
			b.m[m.ID] = m.RPCAddr
			b.dirty = true
		}
	}
	if !b.dirty {
		return nil
	}
	text, err := json.MarshalIndent(b.m, "", "  ")
	if err != nil {
		return err
	}
	if err := vfs.WriteFileAtomic(b.fs, b.name, append(text, '\n')); err != nil {
		return fmt.Errorf("write %s: %w", b.name, err)
	}
	b.dirty = false
	return nil
}

// formatError reports a file that does not hold what it should.
type formatError struct {
	name string
	err  error
}

func (e *formatError) Error() string { return fmt.Sprintf("%s is damaged: %v", e.name, e.err) }
func (e *formatError) Unwrap() error { return e.err }

// maxJSON bounds what readJSON takes into memory.
const maxJSON = 1 << 20

func readJSON(files vfs.FS, name string, into any) error {
	f, err := files.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return err
	}
	if size > maxJSON {
		return &formatError{name, fmt.Errorf("%d bytes are too many", size)}
	}
	text := make([]byte, size)
	if _, err := f.ReadAt(text, 0); err != nil && size > 0 {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return &formatError{name, err}
	}
	return nil
}
