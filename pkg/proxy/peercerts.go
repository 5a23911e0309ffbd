package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"sync"
	"time"
)

// peerCerts remembers the certificates that nodes have shown last, by the names in
// them. There are as many as there are nodes, and gone ones until there are too many.
type peerCerts struct {
	mu     sync.Mutex
	byName map[string]*x509.Certificate // guarded by mu
}

// mostPeerCerts bounds them. Names come from certificates of our own CA.
const mostPeerCerts = 256

// watch has the handshakes of conf, towards the node of that name, remembered.
func (p *peerCerts) watch(name string, conf *tls.Config) *tls.Config {
	verify := conf.VerifyConnection
	conf.VerifyConnection = func(cs tls.ConnectionState) error {
		if err := verify(cs); err != nil {
			return err
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.byName == nil || len(p.byName) >= mostPeerCerts && p.byName[name] == nil {
			p.byName = map[string]*x509.Certificate{}
		}
		p.byName[name] = cs.PeerCertificates[0]
		return nil
	}
	return conf
}

// of is what the node of that name has shown, or nil.
func (p *peerCerts) of(name string) *x509.Certificate {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.byName[name]
}

// ends is when that certificate ends; nil: none was shown.
func (p *peerCerts) ends(name string) *time.Time {
	if c := p.of(name); c != nil {
		return &c.NotAfter
	}
	return nil
}
