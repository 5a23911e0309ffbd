// Package tlsconf turns certificate files into TLS configurations that know who
// is on the other side.
//
// Who somebody is stands in the certificate, as a SPIFFE URI
//
//	spiffe://<cluster>/<role>/<name>
//
// and nowhere else: not in gossip, not in an address, not in a DNS name. A
// certificate without such a URI is a plain client whose name is its CN.
//
// Invariant: a handshake that succeeds under a configuration from this package
// was TLS 1.3, both sides showed a certificate that chains to the CA in use at
// that moment, and the peer's role was one of those asked for. Session tickets
// are off, so no connection outlives a change of CA by being resumed.
//
// Compositions and transports call it (agent, proxy, server, the commands). It
// never decides what an identity may do beyond the role a listener takes, never
// logs, and never prints a key. Importable, not promised.
package tlsconf
