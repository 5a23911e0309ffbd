package cli

import (
	"crypto/tls"
	"errors"
	"flag"
	"strings"
	"time"

	"google.golang.org/grpc/status"

	"github.com/logd-io/logd/pkg/client"
	"github.com/logd-io/logd/pkg/tlsconf"
)

// Where a command connects when nothing is said.
const (
	Sidecar = client.DefaultAddress // plaintext, on this machine
	Node    = "127.0.0.1:8400"
)

// Connect are the flags of a command that talks to a sidecar or a node.
type Connect struct {
	Certs
	Address string
	Timeout time.Duration // of one call that does not stream
}

// Certs are the files of mutual TLS: all of them, or none.
type Certs struct{ CACert, Cert, Key string }

// flags adds -ca-cert, -cert and -key; without says what comes of having none.
func (c *Certs) flags(fs *flag.FlagSet, env Env, without string) {
	fs.StringVar(&c.CACert, "ca-cert", env.Getenv("LOGD_CACERT"), "`file` with the cluster's CA certificates. LOGD_CACERT. "+without)
	fs.StringVar(&c.Cert, "cert", env.Getenv("LOGD_CERT"), "`file` with your certificate. LOGD_CERT")
	fs.StringVar(&c.Key, "key", env.Getenv("LOGD_KEY"), "`file` with its key. LOGD_KEY")
}

// ConnectFlags adds -address, -ca-cert, -cert, -key and -timeout. LOGD_ADDR,
// LOGD_CACERT, LOGD_CERT and LOGD_KEY are their defaults.
func ConnectFlags(fs *flag.FlagSet, env Env, address string) *Connect {
	c := &Connect{}
	fs.StringVar(&c.Address, "address", or(env.Getenv("LOGD_ADDR"), address),
		"`host:port` or unix:///path of the sidecar or node. LOGD_ADDR. Default: "+address)
	c.flags(fs, env, "Without it the connection is plaintext,\nwhich only a sidecar on this machine speaks")
	fs.DurationVar(&c.Timeout, "timeout", 15*time.Second, "`duration` a single call may take. Default: 15s")
	return c
}

// TLS loads the files, for gRPC; nil without any, for plaintext.
func (c *Connect) TLS() (*tls.Config, error) { return c.load(tlsconf.ALPNgRPC) }

// load is for a connection on which alpn is spoken; empty: that is not negotiated.
func (c *Certs) load(alpn string) (*tls.Config, error) {
	if c.CACert == "" && c.Cert == "" && c.Key == "" {
		return nil, nil
	}
	if c.CACert == "" || c.Cert == "" || c.Key == "" {
		return nil, Usagef("mutual TLS takes all of -ca-cert, -cert and -key (LOGD_CACERT, LOGD_CERT, LOGD_KEY)")
	}
	source, err := tlsconf.Load(tlsconf.Files{CA: c.CACert, Cert: c.Cert, Key: c.Key})
	if err != nil {
		return nil, err
	}
	return source.Client(alpn, "", ""), nil
}

// Dial makes the client; the first call connects.
func (c *Connect) Dial() (*client.Client, error) { return c.DialTo(c.Address) }

// DialTo is Dial for another address with the same certificates.
func (c *Connect) DialTo(address string) (*client.Client, error) {
	if _, err := client.Target(address); err != nil {
		return nil, &UsageError{err}
	}
	conf, err := c.TLS()
	if err != nil {
		return nil, err
	}
	return client.Dial(address, conf)
}

// Explain says of an error from a call what its reader can act on.
func Explain(err error) error {
	var call interface {
		error
		GRPCStatus() *status.Status
	}
	if !errors.As(err, &call) {
		return err
	}
	st := call.GRPCStatus()
	said := st.Code().String() + ": " + st.Message()
	switch {
	case len(st.Details()) > 0 || st.Code().String() == "Unknown":
		said = st.Message() // a server's own words
	case st.Code().String() == "Unavailable":
		said = st.Message() + " (is it running, and is this the right -address and certificate?)"
		if cutOff(st.Message()) {
			said += "; a sidecar may speak plaintext: then -ca-cert, -cert and -key are not for it, nor are LOGD_CACERT, LOGD_CERT and LOGD_KEY"
		}
	}
	return errors.New(strings.Replace(err.Error(), call.Error(), said, 1))
}

// cutOff says that a handshake ended without a word of TLS, as with a server that
// does not speak it.
func cutOff(message string) bool {
	if !strings.Contains(message, "authentication handshake failed") {
		return false
	}
	for _, end := range []string{"EOF", "connection reset by peer", "broken pipe", "does not look like a TLS handshake"} {
		if strings.Contains(message, end) {
			return true
		}
	}
	return false
}

// Code is gRPC's name for what kind of error came from a call, for a person; a
// program decides by the reason that package apierr reads.
func Code(err error) string { return status.Code(err).String() }
