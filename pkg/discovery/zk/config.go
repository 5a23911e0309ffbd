package zk

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/logd-io/logd/pkg/tlsconf"
)

const (
	// DefaultSessionTimeout is how long a server keeps the session of who is silent.
	DefaultSessionTimeout = 10 * time.Second

	dialIn   = 5 * time.Second // for one server, until there is a session
	pathMost = 1 << 10
)

// Config says where a serverset is.
type Config struct {
	Servers []string // host:port each
	Path    string   // whose children are the members

	// User and the password, or the first line of its file, are those of ZooKeeper's
	// digest scheme. Without a user what is made is open to everybody.
	User, Password, PasswordFile string

	SessionTimeout time.Duration // 0: DefaultSessionTimeout; a server has bounds of its own

	// PEM files, read at each connection, the key and the file of the password only when
	// nobody but its owner may write them, and only owner and group read. CAFile empty: no TLS.
	CAFile, CertFile, KeyFile string
}

// Check refuses what cannot work.
func (c Config) Check() error {
	if len(c.Servers) == 0 {
		return errors.New("no servers")
	}
	for _, s := range c.Servers {
		if host, port, err := net.SplitHostPort(s); err != nil || host == "" || port == "" {
			return fmt.Errorf("server %q: want host:port", s)
		}
	}
	return checkPath(c.Path)
}

// Files opens what c names, and says what is wrong with the file of the password, and
// with those of TLS.
func (c Config) Files() (password, tls error) {
	_, password = c.credentials()
	if c.CAFile != "" {
		_, tls = c.tls(c.Servers[0])
	}
	return password, tls
}

func (c Config) sessionTimeout() time.Duration {
	if c.SessionTimeout == 0 {
		return DefaultSessionTimeout
	}
	return c.SessionTimeout
}

// shuffled spreads those who ask over the servers.
func (c Config) shuffled() []string {
	servers := slices.Clone(c.Servers)
	rand.Shuffle(len(servers), func(i, j int) { servers[i], servers[j] = servers[j], servers[i] })
	return servers
}

// credentials are user:password; empty without a user.
func (c Config) credentials() (string, error) {
	if c.User == "" {
		return "", nil
	}
	password := c.Password
	if c.PasswordFile != "" {
		text, err := tlsconf.Secret("password file", c.PasswordFile)
		if err != nil {
			return "", err
		}
		password, _, _ = strings.Cut(string(text), "\n")
		password = strings.TrimSuffix(password, "\r")
		if password == "" {
			return "", fmt.Errorf("%s: its first line, the password, is empty", c.PasswordFile)
		}
	}
	if password == "" {
		return "", fmt.Errorf("user %q has no password", c.User)
	}
	return c.User + ":" + password, nil
}

func (c Config) connect(ctx context.Context, server string) (net.Conn, error) {
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", server)
	if err != nil || c.CAFile == "" {
		return raw, err
	}
	conf, err := c.tls(server)
	if err != nil {
		_ = raw.Close() // nothing was sent
		return nil, err
	}
	conn := tls.Client(raw, conf)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close() // also closed already, when ctx has ended
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return conn, nil
}

// tls reads the files anew, so that a rotated certificate needs no restart. TLS 1.2 is
// the newest that servers of Java 8 have.
func (c Config) tls(server string) (*tls.Config, error) {
	roots, cert, err := tlsconf.Foreign(tlsconf.Files{CA: c.CAFile, Cert: c.CertFile, Key: c.KeyFile})
	if err != nil {
		return nil, err
	}
	host, _, err := net.SplitHostPort(server)
	if err != nil {
		return nil, err
	}
	return &tls.Config{ServerName: host, RootCAs: roots, Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}, nil
}

// checkPath refuses what no server would take.
func checkPath(path string) error {
	if !strings.HasPrefix(path, "/") || path == "/" || strings.HasSuffix(path, "/") || len(path) > pathMost {
		return fmt.Errorf("path %q: want /one/or/more names", path)
	}
	for name := range strings.SplitSeq(path[1:], "/") {
		if name == "" || name == "." || name == ".." || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return fmt.Errorf("path %q: %q is no name for a znode here: printable ASCII without spaces, and neither . nor .. alone", path, name)
		}
	}
	return nil
}
