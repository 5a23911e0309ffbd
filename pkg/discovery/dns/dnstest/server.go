// Package dnstest is a DNS server on loopback whose answers a test sets. It is never
// linked into a program.
package dnstest

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"
)

// SRV is a record of that kind.
type SRV struct {
	Host string // absolute: it ends in a dot
	Port uint16
}

// Server answers over UDP. What it knows no record of does not exist.
type Server struct {
	conn net.PacketConn

	mu    sync.Mutex
	addrs map[string][]netip.Addr // by absolute name; guarded by mu
	srv   map[string][]SRV        // likewise
	fail  bool                    // guarded by mu
	asked int                     // guarded by mu
}

// New starts a Server that ends with the test.
func New(t testing.TB) *Server {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &Server{conn: conn, addrs: map[string][]netip.Addr{}, srv: map[string][]SRV{}}
	done := make(chan struct{})
	go func() { defer close(done); s.serve() }()
	t.Cleanup(func() { _ = conn.Close(); <-done })
	return s
}

// Resolver is Go's, asking the server alone.
func (s *Server) Resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", s.conn.LocalAddr().String())
	}}
}

// Set gives name, which ends in a dot, these addresses; none take it away.
func (s *Server) Set(name string, addrs ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.addrs, name)
	for _, a := range addrs {
		s.addrs[name] = append(s.addrs[name], netip.MustParseAddr(a))
	}
}

// SetSRV gives name, which ends in a dot, these records.
func (s *Server) SetSRV(name string, records ...SRV) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.srv[name] = records
}

// Fail has it answer SERVFAIL, or no longer.
func (s *Server) Fail(fail bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = fail
}

// Asked is how many questions have been answered.
func (s *Server) Asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

func (s *Server) serve() {
	buf := make([]byte, 4096)
	for {
		n, from, err := s.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
			continue
		}
		answer := s.answer(m)
		if packed, err := answer.Pack(); err == nil {
			_, _ = s.conn.WriteTo(packed, from)
		}
	}
}

func (s *Server) answer(m dnsmessage.Message) dnsmessage.Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	q := m.Questions[0]
	m.Response, m.Authoritative, m.RecursionAvailable = true, true, true
	m.Additionals = nil
	name := strings.ToLower(q.Name.String())
	head := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1}
	add := func(b dnsmessage.ResourceBody) {
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: head, Body: b})
	}
	switch {
	case s.fail:
		m.RCode = dnsmessage.RCodeServerFailure
		return m
	case len(s.addrs[name]) == 0 && len(s.srv[name]) == 0:
		m.RCode = dnsmessage.RCodeNameError
		return m
	}
	for _, a := range s.addrs[name] {
		switch {
		case q.Type == dnsmessage.TypeA && a.Is4():
			add(&dnsmessage.AResource{A: a.As4()})
		case q.Type == dnsmessage.TypeAAAA && a.Is6():
			add(&dnsmessage.AAAAResource{AAAA: a.As16()})
		}
	}
	for _, r := range s.srv[name] {
		if target, err := dnsmessage.NewName(r.Host); err == nil && q.Type == dnsmessage.TypeSRV {
			add(&dnsmessage.SRVResource{Port: r.Port, Target: target})
		}
	}
	return m
}
