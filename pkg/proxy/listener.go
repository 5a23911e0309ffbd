package proxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/logd-io/logd/config"
	"github.com/logd-io/logd/pkg/internal/netlimit"
)

// PlaintextError refuses to serve without TLS where others could reach it.
type PlaintextError struct{ Addr string }

func (e *PlaintextError) Error() string {
	return fmt.Sprintf("listener.address: %s can be reached from outside this machine, where plaintext is not served: bind a loopback address or a unix socket, or add a tls block to listener", e.Addr)
}

// listen binds the clients' listener. Whether plaintext is allowed is decided by
// what was bound, since a name may resolve to anything.
func listen(l config.Listener) (net.Listener, error) {
	network, addr := l.Network()
	if network == "unix" {
		if err := removeStale(addr); err != nil {
			return nil, fmt.Errorf("listener.address: %w", err)
		}
	}
	lis, err := net.Listen(network, addr)
	if err != nil {
		return nil, fmt.Errorf("listener.address: %w", err)
	}
	if tcp, ok := lis.Addr().(*net.TCPAddr); ok && l.TLS.IsZero() && !tcp.IP.IsLoopback() {
		return nil, errors.Join(&PlaintextError{Addr: lis.Addr().String()}, lis.Close())
	}
	return lis, nil
}

// accepted is a listener whose connections are in fresh until they are known: the
// oldest of those gives way.
type accepted struct {
	net.Listener
	fresh *netlimit.Newest
}

// Accept answers a *netlimit.Conn. A peer that does not take what was sent to it
// within pingTimeout loses the connection, as gRPC would have it if it saw that
// this is TCP: else one that keeps talking and never reads is never asked.
func (a accepted) Accept() (net.Conn, error) {
	c, err := a.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = setUserTimeout(tcp, pingTimeout) // where there is no such thing, keepalive has to do
	}
	return a.fresh.Add(c), nil
}

// preface is what an HTTP/2 client says first (RFC 9113, 3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// spokenTo is inner, plaintext, in which a client has shown what it is when it has
// said the preface. Without it a connection would be known by being accepted.
func spokenTo(inner credentials.TransportCredentials) credentials.TransportCredentials {
	return spoken{inner}
}

type spoken struct {
	credentials.TransportCredentials
}

// ServerHandshake reads the preface under the deadline that gRPC has set.
func (s spoken) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	said := make([]byte, len(preface))
	if _, err := io.ReadFull(raw, said); err != nil {
		return nil, nil, err
	}
	if string(said) != preface {
		return nil, nil, fmt.Errorf("this is not HTTP/2: %q", said)
	}
	conn, info, err := s.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	return &again{Conn: conn, said: said}, info, nil
}

// again is a connection whose first bytes are read twice.
type again struct {
	net.Conn
	said []byte // not read again yet; the reader's alone
}

func (a *again) Read(b []byte) (int, error) {
	if len(a.said) == 0 {
		return a.Conn.Read(b)
	}
	n := copy(b, a.said)
	if a.said = a.said[n:]; len(a.said) == 0 {
		a.said = nil
	}
	return n, nil
}

// removeStale removes the socket that a process left behind which no longer
// listens on it. Anything else at that path is left alone, for Listen to report.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if err != nil || info.Mode()&fs.ModeSocket == 0 {
		return nil //nolint:nilerr // nothing there, or nothing of ours
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		return errors.Join(fmt.Errorf("%s: another process listens there", path), conn.Close())
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}

// listening is what lis is bound to: host:port, or unix:// and a path.
func listening(lis net.Listener) string {
	if lis.Addr().Network() == "unix" {
		return "unix://" + lis.Addr().String()
	}
	return lis.Addr().String()
}

// address is how a client on this machine, or with TLS any machine, reaches lis.
func address(lis net.Listener, cfg *config.Proxy) string {
	tcp, ok := lis.Addr().(*net.TCPAddr)
	switch {
	case !ok:
		return listening(lis)
	case !tcp.IP.IsUnspecified():
		return tcp.String()
	}
	if host, err := cfg.AdvertiseHost(); err == nil {
		return net.JoinHostPort(host, strconv.Itoa(tcp.Port))
	}
	return tcp.String()
}

// Addrs are the addresses really bound, as in addrs.json.
type Addrs struct {
	Listener string `json:"listener"`
	Gossip   string `json:"gossip,omitempty"`
	Admin    string `json:"admin"`
}

const addrsFile = "addrs.json"

// readAddrs answers what was bound when a proxy last ran on dir; nothing if that
// cannot be told.
func readAddrs(dir string) (a Addrs) {
	if dir == "" {
		return a
	}
	body, err := os.ReadFile(filepath.Join(dir, addrsFile))
	if err != nil || json.Unmarshal(body, &a) != nil {
		return Addrs{}
	}
	return a
}

// reuse answers addr with the port it had before, if its own is 0: a proxy that
// starts again is where its clients look for it.
func reuse(addr, before string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || port != "0" {
		return addr
	}
	if _, port, err = net.SplitHostPort(before); err != nil {
		return addr
	}
	return net.JoinHostPort(host, port)
}

// write puts a into dir's addrs.json, whole or not at all. It is for whoever
// started the process with port 0, and not worth a sync.
func (a Addrs) write(dir string) error {
	if dir == "" {
		return nil
	}
	body, err := json.MarshalIndent(a, "", "  ")
	if err != nil {
		return fmt.Errorf("addrs.json: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("data_dir: %w", err)
	}
	path := filepath.Join(dir, addrsFile)
	if err := os.WriteFile(path+".tmp", append(body, '\n'), 0o600); err != nil {
		return fmt.Errorf("data_dir: %w", err)
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return fmt.Errorf("data_dir: %w", err)
	}
	return nil
}
