// Package zktest is a ZooKeeper on loopback for tests that need one where there is none:
// the requests that package zk makes, ephemeral and sequential znodes, and watches.
// A session ends with its connection. It is never linked into a program.
package zktest

import (
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// Server is the whole of it.
type Server struct {
	lis net.Listener

	mu       sync.Mutex
	nodes    map[string]*znode // by path; guarded by mu
	visitors map[*visitor]bool // who is connected; guarded by mu
	served   sync.WaitGroup
}

type znode struct {
	data     []byte
	owner    *visitor // of an ephemeral one
	children int      // ever made, for sequential names
	locked   bool     // nobody may read it, nor remove a child
}

// visitor is a connection and its session.
type visitor struct {
	conn    net.Conn
	watches map[string]bool // paths; guarded by the server's mu
}

// New starts a Server that ends with the test.
func New(t testing.TB) *Server {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &Server{lis: lis, nodes: map[string]*znode{"/": {}}, visitors: map[*visitor]bool{}}
	s.served.Go(s.accept)
	t.Cleanup(func() {
		_ = lis.Close()
		s.Cut()
		s.served.Wait()
	})
	return s
}

// Addr is host:port for clients.
func (s *Server) Addr() string { return s.lis.Addr().String() }

// Cut ends all connections, and with them the sessions.
func (s *Server) Cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for v := range s.visitors {
		_ = v.conn.Close()
	}
}

// Set makes a znode, and those above it.
func (s *Server) Set(name, data string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := name; s.nodes[p] == nil; p = path.Dir(p) {
		s.nodes[p] = &znode{}
		defer s.changed(p)
	}
	s.nodes[name].data = []byte(data)
}

// Lock forbids everybody to read a znode and to remove its children.
func (s *Server) Lock(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nodes[name].locked = true
}

// Children are the data of the children of a znode, by name.
func (s *Server) Children(name string) map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := map[string]string{}
	for p, n := range s.nodes {
		if path.Dir(p) == name && p != name {
			found[path.Base(p)] = string(n.data)
		}
	}
	return found
}

func (s *Server) accept() {
	for {
		conn, err := s.lis.Accept()
		if err != nil {
			return
		}
		v := &visitor{conn: conn, watches: map[string]bool{}}
		s.mu.Lock()
		s.visitors[v] = true
		s.mu.Unlock()
		s.served.Go(func() { s.serve(v) })
	}
}

// serve answers until the connection ends.
func (s *Server) serve(v *visitor) {
	defer s.leave(v)
	hello := read(v.conn)
	if len(hello) < 16 {
		return
	}
	timeout := hello[12:16]
	write(v.conn, []byte{0, 0, 0, 0}, timeout, []byte{0, 0, 0, 0, 0, 0, 0, 1}, text(string(make([]byte, 16))), []byte{0})
	for {
		req := read(v.conn)
		if len(req) < 8 {
			return
		}
		op := int32(binary.BigEndian.Uint32(req[4:]))
		s.mu.Lock()
		code, body := s.do(v, op, req[8:])
		write(v.conn, req[:4], make([]byte, 8), number(code), body)
		s.mu.Unlock()
		if op == -11 {
			return
		}
	}
}

func (s *Server) leave(v *visitor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = v.conn.Close()
	delete(s.visitors, v)
	for p, n := range s.nodes {
		if n.owner == v {
			s.remove(p)
		}
	}
}

const noNode, noAuth, nodeExists = -101, -102, -110

// do is one request. The lock is held.
func (s *Server) do(v *visitor, op int32, body []byte) (code int32, answer []byte) {
	if op == 11 || op == 100 || op == -11 {
		return 0, nil
	}
	name, rest := take(body)
	n := s.nodes[name]
	switch op {
	case 1:
		data, rest := take(rest)
		parent := s.nodes[path.Dir(name)]
		switch {
		case parent == nil:
			return noNode, nil
		case n != nil:
			return nodeExists, nil
		}
		made := &znode{data: []byte(data)}
		if flags := rest[len(rest)-1]; flags&2 != 0 {
			name += fmt.Sprintf("%010d", parent.children)
			made.owner = v
		}
		parent.children++
		s.nodes[name] = made
		s.changed(name)
		return 0, text(name)
	case 2:
		switch {
		case n == nil:
			return noNode, nil
		case s.nodes[path.Dir(name)].locked:
			return noAuth, nil
		}
		s.remove(name)
		return 0, nil
	case 3:
		v.watches[name] = true
	case 8:
		v.watches[name] = v.watches[name] || n != nil
	}
	switch {
	case n == nil:
		return noNode, nil
	case n.locked && (op == 4 || op == 8):
		return noAuth, nil
	case op == 4:
		return 0, text(string(n.data))
	case op == 8:
		var names []string
		for _, p := range slices.Sorted(maps.Keys(s.nodes)) {
			if path.Dir(p) == name && p != name {
				names = append(names, string(text(path.Base(p))))
			}
		}
		return 0, append(number(int32(len(names))), strings.Join(names, "")...)
	}
	return 0, make([]byte, 68)
}

func (s *Server) remove(name string) {
	delete(s.nodes, name)
	s.changed(name)
}

// changed tells who watches a znode or the one above it.
func (s *Server) changed(name string) {
	for _, p := range []string{name, path.Dir(name)} {
		for v := range s.visitors {
			if v.watches[p] {
				delete(v.watches, p)
				write(v.conn, number(-1), make([]byte, 12), number(4), number(3), text(p))
			}
		}
	}
}

func read(r io.Reader) []byte {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil
	}
	body := make([]byte, min(binary.BigEndian.Uint32(head[:]), 1<<20))
	if _, err := io.ReadFull(r, body); err != nil {
		return nil
	}
	return body
}

// write ignores what fails: whoever reads has gone, and reading says so.
func write(w io.Writer, parts ...[]byte) {
	body := slices.Concat(parts...)
	_, _ = w.Write(append(number(int32(len(body))), body...))
}

func number(n int32) []byte { return binary.BigEndian.AppendUint32(nil, uint32(n)) }
func text(s string) []byte  { return append(number(int32(len(s))), s...) }
func take(b []byte) (string, []byte) {
	n := binary.BigEndian.Uint32(b)
	return string(b[4 : 4+n]), b[4+n:]
}
